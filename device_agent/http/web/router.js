// Which view is shown: #/chat, #/models/<id>, #/usage?days=7. Links are links, and the back button works.

const HOME = "chat";

/** {view, id, query} of a hash, or null if it is none of ours (such as the skip link's). */
export function parse(hash) {
  if (hash === "" || hash === "#") return { view: HOME, id: null, query: new URLSearchParams() };
  const found = /^#\/([a-z]+)(?:\/([^?]*))?(?:\?(.*))?$/.exec(hash);
  if (!found) return null;
  return { view: found[1], id: found[2] ? decoded(found[2]) : null, query: new URLSearchParams(found[3] ?? "") };
}

/** The address of something in a view. */
export function address(view, id = null, query = {}) {
  const tail = new URLSearchParams(query).toString();
  return `#/${view}${id === null ? "" : `/${encodeURIComponent(id)}`}${tail ? `?${tail}` : ""}`;
}

/** The address in the browser's bar, changed without going anywhere. */
export function replace(hash) {
  history.replaceState(null, "", hash);
}

/**
 * Shows the view of the address, now and whenever it changes. Each of `views` has `enter({id, query, first})`, which
 * gives the document's title, and perhaps `leave()`. Focus goes to the view's heading, so that a screen reader says
 * where one is and Tab goes on from there.
 */
export function start(views) {
  let shown = null;
  const go = () => {
    const target = parse(location.hash);
    if (!target) return;
    const name = Object.hasOwn(views, target.view) ? target.view : HOME;
    const id = name === target.view ? target.id : null;
    const first = shown === null;
    const same = shown?.name === name && shown.id === id; // then only a filter is another
    if (shown !== null && shown.name !== name) views[shown.name].leave?.();
    shown = { name, id };
    mark(name);
    views[name].enter({ id, query: target.query, first });
    if (!first && !same) document.querySelector(`#view-${name} h1`)?.focus({ preventScroll: true });
  };
  addEventListener("hashchange", go);
  go();
}

function mark(name) {
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== `view-${name}`;
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a lone % sign
  }
}
