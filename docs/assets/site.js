// Names and roles that the theme leaves out, for those who do not see the page or have no mouse.
"use strict";
(() => {
  const WORDY = 6;
  const WIDE = ".md-typeset__scrollwrap, p:has(> img[src$='.svg']), p:has(> svg.who), div:has(> svg.who)";

  // What the theme adds to a page while it is read: what scrolls, and a copy button in a landmark of its own.
  function mend(content) {
    for (const nav of content.querySelectorAll("nav.md-code__nav")) nav.setAttribute("role", "none");
    // A cell of sentences, which can be squeezed to one word a line, gets room for some of them.
    for (const cell of content.querySelectorAll("td:not([class])")) {
      if (cell.textContent.split(" ").length > WORDY) cell.className = "wordy";
    }
    for (const wide of content.querySelectorAll(`:is(${WIDE}):not([tabindex])`)) {
      if (wide.scrollWidth > wide.clientWidth) wide.tabIndex = 0; // the arrow keys scroll it
    }
  }

  function start() {
    document.querySelector(".md-search")?.setAttribute("aria-label", "Search the pages");
    for (const part of document.querySelectorAll(".md-nav--primary .md-nav[data-md-level]")) {
      part.setAttribute("role", "none"); // one navigation, not one for each folder
      part.removeAttribute("aria-expanded");
      part.removeAttribute("aria-labelledby");
    }
    const content = document.querySelector(".md-content");
    if (!content) return;
    mend(content);
    new MutationObserver(() => mend(content)).observe(content, { childList: true, subtree: true });
    window.addEventListener("resize", () => mend(content));
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
