// A client of autoglm for Node 18 or newer, without packages; docs/protocol.md tells the rest.
//   node autoglm.mjs submit TEXT | result ID | stream TEXT
import { randomBytes } from "node:crypto";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";

const { AUTOGLM_SOCKET, AUTOGLM_DATA_DIR, XDG_RUNTIME_DIR, XDG_DATA_HOME, HOME } = process.env;
const FOLDER = AUTOGLM_DATA_DIR || `${XDG_RUNTIME_DIR || XDG_DATA_HOME || `${HOME}/.local/share`}/autoglm`;
const SOCKET = AUTOGLM_SOCKET || `${FOLDER}/autoglm.sock`;

export class Client {
  constructor({ socket = SOCKET, tenant = "default", patienceMs = 30_000 } = {}) {
    Object.assign(this, { socket, tenant, patienceMs });
  }
  /** The task, durable. `options` are fields of TaskSpec; with an `id`, repeating it is safe. */
  async submit(text, options) {
    const request = { type: "submit", tasks: [taskOf(text, options)] };
    for await (const reply of this.#ask(request, "submitted")) return reply.tasks[0].task;
  }
  /** The text of a task's answer, once there is one. */
  async result(id) {
    for await (const reply of this.#ask({ type: "get", id, wait: true }, "answer")) return textOf(reply.answer);
  }

  /** Pieces `{ text, reset }` of the answer as it is written; `reset`: what came before is void. */
  async *stream(text, options) {
    const request = { type: "submit", tasks: [taskOf(text, { ...options, stream: true })], follow: true };
    let [shown, attempt] = ["", 0];
    for await (const reply of this.#ask(request, "answer")) {
      let whole = reply.type === "answer" ? textOf(reply.answer) : shown;
      if (reply.type === "chunk") {
        const first = reply.attempt > attempt && !reply.offset; // a field left out is 0
        if (!first && (reply.attempt !== attempt || reply.offset !== [...shown].length)) continue;
        whole = first ? reply.text : shown + reply.text;
        attempt = reply.attempt;
      }
      const reset = !whole.startsWith(shown);
      if (whole !== shown) yield { text: reset ? whole : whole.slice(shown.length), reset };
      shown = whole;
    }
  }

  /** The replies to `request` up to the `last` kind; while the server is away, it is sent again. */
  async *#ask(request, last) {
    const messages = [{ type: "hello", rid: 1, tenant: this.tenant }, { ...request, rid: 2 }];
    const until = Date.now() + this.patienceMs;
    for (let pauseMs = 20; ; pauseMs = Math.min(2 * pauseMs, 1000)) {
      let trouble = { code: "unavailable", message: `no server at ${this.socket}` };
      for await (const reply of conversation(this.socket, messages)) {
        const refused = reply.type === "error" ? reply : reply.tasks?.[0].error;
        if (refused) { trouble = { retry_after: reply.tasks?.[0].retry_after, ...refused }; break; }
        if (reply.rid === 2) yield reply;
        if (reply.type === last) return;
      }
      if (!["unavailable", "busy"].includes(trouble.code) || Date.now() > until) throw failure(trouble);
      await sleep(1000 * trouble.retry_after || pauseMs);
    }
  }
}

async function* conversation(path, messages) {
  const socket = connect(path).setEncoding("utf8");
  socket.write(messages.map((message) => `${json(message)}\n`).join(""));
  let rest = "";
  try {
    for await (const data of socket) {
      const lines = (rest + data).split("\n"); // and nowhere else: a text may hold U+2028
      rest = lines.pop();
      yield* lines.map((line) => JSON.parse(line));
    }
  } catch (error) {
    if (!error.syscall) throw error; // nobody listens, or no longer
  }
}

/** JSON in which a BigInt is a number: for a seed beyond 2^53. */
function json(value) {
  if (Array.isArray(value)) return `[${value.map(json)}]`;
  if (value === null || typeof value !== "object") return typeof value === "bigint" ? `${value}` : JSON.stringify(value);
  const fields = Object.entries(value).filter(([, each]) => each !== undefined);
  return `{${fields.map(([name, each]) => `${JSON.stringify(name)}:${json(each)}`)}}`;
}
/** 26 letters and digits that nobody else mints: 48 bits of time, then 56 random ones. */
export const mintId = () => Date.now().toString(16).padStart(12, "0") + randomBytes(7).toString("hex");
const taskOf = (text, options) => ({ id: mintId(), messages: [{ role: "user", content: text }], ...options });
const failure = ({ message, ...rest }) => Object.assign(new Error(message), rest);

function textOf({ task, result }) {
  if (result) return result.text;
  throw failure({ code: task.state, message: `task ${task.id} is ${task.state}: ${task.error?.message}` });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const [client, [command, argument]] = [new Client(), process.argv.slice(2)];
  if (command === "submit") console.log((await client.submit(argument)).id);
  else if (command === "result") console.log(await client.result(argument));
  else for await (const { text, reset } of client.stream(argument)) process.stdout.write(reset ? `\n${text}` : text);
}
