"use strict";

// Behind a proxy that speaks TLS, only the browser knows the whole address. Nothing but letters that mean the same to a
// shell goes into a command.
if (/^https?:\/\/[a-z0-9.:[\]-]+$/.test(location.origin)) {
  for (const at of document.querySelectorAll(".at")) at.textContent = location.origin;
}

// Browsers have a clipboard for pages on this machine and on TLS; elsewhere, what is selected can be copied.
async function copy(code) {
  if (navigator.clipboard) return navigator.clipboard.writeText(code.textContent);
  getSelection().selectAllChildren(code);
  if (!document.execCommand("copy")) throw new Error("not allowed");
}

const said = document.getElementById("copied");
for (const button of document.querySelectorAll(".step button")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = button.closest("li").querySelector("code");
    try {
      await copy(code);
      button.textContent = said.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = said.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; said.textContent = ""; }, 2000);
  });
}
