// Official Socket.IO clients of any installed version, many in one process: one JSON command a line in, one JSON line
// out per thing that happened to client `c`. tests/clients/many.py drives it.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(import.meta.url);
const out = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const sockets = new Map();

// Version 2 has neither onAny nor a named export.
const listenToAll = (socket, listen) => (socket.onAny ? socket.onAny(listen) : undefined);

const commands = {
  connect({ c, module, url, options }) {
    const loaded = require(module);
    const io = loaded.io ?? loaded;
    const socket = io(url, { reconnectionDelay: 50, reconnectionDelayMax: 200, forceNew: true, ...options });
    sockets.set(c, socket);
    socket.on("connect", () =>
      out({ c, is: "connect", id: socket.id, recovered: Boolean(socket.recovered), transport: socket.io.engine.transport.name }),
    );
    socket.on("disconnect", (reason) => out({ c, is: "disconnect", reason }));
    // `description` is the HTTP status of a refused poll, and an event object for a websocket.
    socket.on("connect_error", (error) =>
      out({
        c,
        is: "connect_error",
        message: String(error.message),
        status: typeof error.description === "number" ? error.description : null,
        data: error.data ?? null,
      }),
    );
    // What version 2 hands an application when the server refuses it; later versions have connect_error for that.
    if (!socket.onAny) socket.on("error", (error) => out({ c, is: "error", error }));
    listenToAll(socket, (name, ...args) => out({ c, is: "event", name, args }));
    socket.io.engine.on("upgrade", (transport) => out({ c, is: "upgrade", transport: transport.name }));
  },
  // With a callback: emitWithAck and timeout came later than the oldest versions.
  call({ c, name, args, id }) {
    sockets.get(c).emit(name, ...args, (answer) => out({ c, is: "answer", id, answer }));
  },
  binary({ c, name, id }) {
    const bytes = new Uint8Array([1, 2, 3]).buffer;
    sockets.get(c).emit(name, { userId: bytes }, (answer) => out({ c, is: "answer", id, answer }));
  },
  disconnect({ c }) {
    sockets.get(c).disconnect();
  },
};

createInterface({ input: process.stdin }).on("line", (line) => {
  const { do: name, ...rest } = JSON.parse(line);
  commands[name](rest);
}).on("close", () => process.exit(0));
out({ is: "ready" });
