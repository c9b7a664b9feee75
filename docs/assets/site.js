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

// The theme shows the path of a search result with a contrast of 3.4. The dialog is in a shadow root.
const raiseContrastOfSearch = () => {
  for (const { shadowRoot } of document.body.children) {
    if (!shadowRoot || shadowRoot.querySelector("#site")) continue;
    const style = document.createElement("style");
    style.id = "site";
    style.textContent = "a li { color: rgb(var(--color-foreground) / .7); }";
    shadowRoot.append(style);
  }
};
new MutationObserver(raiseContrastOfSearch).observe(document.body, { childList: true });
raiseContrastOfSearch();
