// The copy button of a console session copies its commands, without the prompts and the output.
document.addEventListener("click", (event) => {
  const button = event.target.closest?.(".language-console [data-clipboard-target]");
  if (!button) return;
  const commands = document.querySelector(button.dataset.clipboardTarget).textContent.split("\n");
  button.dataset.clipboardText = commands
    .filter((line) => /^[$#] /.test(line))
    .map((line) => line.slice(2))
    .join("\n");
}, true);

// A table that is wider than the window scrolls. The keyboard can scroll it if it can have the focus.
const makeWideTablesFocusable = () => {
  for (const table of document.querySelectorAll(".md-typeset__scrollwrap")) {
    if (table.scrollWidth > table.clientWidth) table.tabIndex = 0;
    else table.removeAttribute("tabindex");
  }
};
addEventListener("load", makeWideTablesFocusable);
addEventListener("resize", makeWideTablesFocusable);
