// Copying and saving.

/** Puts `text` on the clipboard and says so on `button`; without https or localhost the old way is the only one. */
export async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    field.className = "hidden";
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
    button.focus();
  }
  const label = button.querySelector("span") ?? button;
  const before = label.textContent;
  if (before === "Copied") return;
  label.textContent = "Copied";
  document.getElementById("status").textContent = "Copied.";
  setTimeout(() => (label.textContent = before), 1500);
}

/** Offers `text` as a file. */
export function save(text, name, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the browser may still be reading it
}
