// Light or dark: as the system says, until the button says otherwise. Loaded before the page is drawn.

const KEY = "stpath-theme";

function current() {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  try {
    return localStorage.getItem(KEY) ?? system;
  } catch {
    return system; // storage may be forbidden
  }
}

function show(theme) {
  document.documentElement.dataset.theme = theme;
  const button = document.getElementById("theme");
  if (button) button.setAttribute("aria-pressed", String(theme === "dark"));
}

show(current());
document.addEventListener("DOMContentLoaded", () => {
  show(current());
  document.getElementById("theme")?.addEventListener("click", () => {
    const next = current() === "dark" ? "light" : "dark";
    try {
      localStorage.setItem(KEY, next);
    } catch {
      // it then lasts as long as the page
    }
    show(next);
  });
});
