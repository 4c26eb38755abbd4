// Conversations, kept in this browser (IndexedDB) and nowhere else. Without a database they last as long as the page.

const DATABASE = "edgekit";
const TABLE = "conversations";
const SWITCH = "edgekit.keep";
/** The oldest are let go beyond this many, or beyond this many characters in all. */
export const LIMITS = { conversations: 200, characters: 20_000_000, title: 120 };

const all = new Map(); // id -> conversation
const listeners = new Set();
const channel = typeof BroadcastChannel === "function" ? new BroadcastChannel(DATABASE) : null;
let database = null;

/** Reads what is kept. `changed()` is called whenever the list is another, from here or from another tab. */
export async function open(changed) {
  listeners.add(changed);
  database = await opened().catch(() => null);
  await load();
  channel?.addEventListener("message", load);
}

/** A conversation that has not begun. */
export function blank() {
  const id = Array.from(
    crypto.getRandomValues(new Uint8Array(9)),
    (byte) => byte.toString(36).padStart(2, "0"),
  ).join("");
  return { id, title: "", named: false, created: Date.now(), updated: Date.now(), model: "", messages: [] };
}

export const get = (id) => all.get(id);

/** The newest first; with `words`, those that have every one of them in the title or a message. */
export function list(words = "") {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [...all.values()].filter((one) => wanted.every((word) => mentions(one, word)));
  return found.sort((a, b) => b.updated - a.updated);
}

/** Keeps a conversation as it is now. */
export async function keep(conversation) {
  conversation.updated = Date.now();
  if (!conversation.named) conversation.title = titleOf(conversation);
  all.set(conversation.id, conversation);
  const gone = isKeeping() ? trim() : [];
  tell();
  if (!database || !isKeeping()) return;
  await write((table) => {
    table.put(conversation);
    for (const id of gone) table.delete(id);
  });
}

export async function rename(id, title) {
  const conversation = all.get(id);
  const words = title.trim().slice(0, LIMITS.title);
  if (!conversation || !words) return;
  Object.assign(conversation, { title: words, named: true });
  await keep(conversation);
}

export async function remove(id) {
  all.delete(id);
  tell();
  await write((table) => table.delete(id));
}

export async function clear() {
  all.clear();
  tell();
  await write((table) => table.clear());
}

/** Whether conversations outlast the page. */
export function isKeeping() {
  try {
    return localStorage.getItem(SWITCH) !== "no";
  } catch {
    return false;
  }
}

/** Switches keeping on or off; off removes what was kept, and on keeps what this page still has. */
export async function setKeeping(on) {
  try {
    if (on) localStorage.removeItem(SWITCH);
    else localStorage.setItem(SWITCH, "no");
  } catch {
    // Storage is switched off, and nothing is kept anyway.
  }
  await write((table) => {
    if (!on) table.clear();
    else for (const conversation of all.values()) table.put(conversation);
  });
  tell();
}

function titleOf({ messages }) {
  const words = messages.find(({ role }) => role === "user")?.content.trim().split("\n")[0] ?? "";
  return words.length > 60 ? `${words.slice(0, 59).trimEnd()}…` : words;
}

function mentions({ title, messages }, word) {
  return title.toLowerCase().includes(word) || messages.some(({ content }) => content.toLowerCase().includes(word));
}

/** Lets the oldest go until the limits hold; gives their ids. */
function trim() {
  const gone = [];
  let characters = 0;
  list().forEach((one, index) => {
    characters += one.messages.reduce(
      (sum, { content, reasoning }) => sum + content.length + (reasoning?.length ?? 0),
      0,
    );
    if (index > 0 && (index >= LIMITS.conversations || characters > LIMITS.characters)) gone.push(one.id);
  });
  for (const id of gone) all.delete(id);
  return gone;
}

async function load() {
  if (!database) return;
  const found = await done(database.transaction(TABLE).objectStore(TABLE).getAll()).catch(() => []);
  const kept = found.filter(isConversation);
  if (isKeeping()) for (const id of all.keys()) if (!kept.some((one) => one.id === id)) all.delete(id);
  // An object that the page already shows stays that object.
  for (const one of kept) all.set(one.id, Object.assign(all.get(one.id) ?? {}, one));
  for (const listener of listeners) listener();
}

function isConversation(one) {
  if (typeof one?.id !== "string" || typeof one.title !== "string" || !Array.isArray(one.messages)) return false;
  return one.messages.every((message) => typeof message?.content === "string");
}

function tell() {
  for (const listener of listeners) listener();
}

async function write(change) {
  if (!database) return;
  try {
    const transaction = database.transaction(TABLE, "readwrite");
    change(transaction.objectStore(TABLE));
    transaction.commit(); // or the browser waits for this page, and forgets it all if the page is left meanwhile
    await new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = () => reject(transaction.error);
    });
    channel?.postMessage("changed");
  } catch (error) {
    console.info("edgekit: conversations could not be kept:", error); // a full disk: the page goes on without
  }
}

async function opened() {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(TABLE, { keyPath: "id" });
  return done(request);
}

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
