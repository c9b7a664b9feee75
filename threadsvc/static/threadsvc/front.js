"use strict";

// Behind a TLS proxy, only the browser knows the full address. Quoted commands contain it, so the pattern admits no
// character that a shell expands between double quotes.
if (/^https?:\/\/[a-z0-9.:[\]-]+$/.test(location.origin)) {
  for (const at of document.querySelectorAll(".at")) at.textContent = location.origin;
}

// Browsers offer navigator.clipboard on localhost and over TLS only. Elsewhere, copy the selection.
async function copy(code) {
  if (navigator.clipboard) return navigator.clipboard.writeText(code.textContent);
  getSelection().selectAllChildren(code);
  if (!document.execCommand("copy")) throw new Error("not allowed");
}

const announced = document.getElementById("copied");
for (const button of document.querySelectorAll(".step button")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = button.closest("li").querySelector("code");
    try {
      await copy(code);
      button.textContent = announced.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = announced.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; announced.textContent = ""; }, 2000);
  });
}
