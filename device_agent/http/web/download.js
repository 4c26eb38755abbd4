// A conversation as a file.

import { save } from "./clipboard.js";

/** As Markdown, for people. */
function asMarkdown(conversation) {
  const day = new Date(conversation.created).toISOString().slice(0, 10);
  const parts = [`# ${conversation.title}`, [day, conversation.model].filter(Boolean).join(", ")];
  for (const { role, content, reasoning, note, model } of conversation.messages) {
    parts.push(`## ${role === "user" ? "You" : (model ?? conversation.model) || "Model"}`);
    if (reasoning) parts.push(reasoning.trim().split("\n").map((line) => `> ${line}`.trimEnd()).join("\n"));
    parts.push(content);
    if (note) parts.push(`_${note}_`);
  }
  return `${parts.join("\n\n")}\n`;
}

/** As JSON, for programs: messages in the form that the API takes, and what else is known of them. */
function asJson({ title, created, updated, model, messages }) {
  const times = { created: new Date(created).toISOString(), updated: new Date(updated).toISOString() };
  return `${JSON.stringify({ format: "edgekit.conversation/1", title, ...times, model, messages }, null, 2)}\n`;
}

export function saveMarkdown(conversation) {
  save(asMarkdown(conversation), `${fileName(conversation)}.md`, "text/markdown;charset=utf-8");
}

export function saveJson(conversation) {
  save(asJson(conversation), `${fileName(conversation)}.json`, "application/json");
}

function fileName({ title }) {
  const words = title.toLowerCase().normalize("NFKD").replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "");
  return words.slice(0, 60) || "conversation";
}
