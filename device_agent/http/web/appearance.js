// Light, dark, or as the system has it. theme.js does the same before the first paint.

const KEY = "edgekit.theme";
const root = document.documentElement;

/** The button that switches between light and dark. */
export function start(button) {
  button.addEventListener("click", () => {
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    choose((root.dataset.theme ?? system) === "dark" ? "light" : "dark");
  });
}

/** "light", "dark" or "system". */
export function choose(theme) {
  try {
    if (theme === "system") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, theme);
  } catch {
    // Storage may be switched off: the choice then lasts as long as the page.
  }
  if (theme === "system") delete root.dataset.theme;
  else root.dataset.theme = theme;
}

/** Makes the drawer's choice say what is. */
export function show() {
  const current = root.dataset.theme ?? "system";
  for (const option of document.querySelectorAll("input[name=theme]")) option.checked = option.value === current;
}
