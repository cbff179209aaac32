// One session without Python: Node.js, grpc-js, and the .proto files read at run time.
//
//     cd docs/examples/node && npm ci && node adapt.mjs 127.0.0.1:50551
//
// A simulated session first: the server adapts to a task of navigation-2d in its own simulator, and we download the
// policy. Then a client-owned one: the points that move in the plane are ours, the server says where they should go.
// docs/transcript.md shows what it prints; docs/protocol.md explains it.

import { createHash } from "node:crypto";
import path from "node:path";
import { fileURLToPath } from "node:url";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const here = path.dirname(fileURLToPath(import.meta.url));
const protos = path.resolve(here, "../../../protos");
const definition = protoLoader.loadSync(
  ["task", "adaptation", "policy"].map((name) => `innerloop/v1/${name}.proto`),
  // 64-bit integers as text and enums by name; unset fields stay away, so that what is printed is what was said.
  { includeDirs: [protos], keepCase: true, longs: String, enums: String, oneofs: true },
);
const { v1 } = grpc.loadPackageDefinition(definition).innerloop;

const [address = "127.0.0.1:50551", learner = "learners/navigation-2d-maml"] = process.argv.slice(2);
const credentials = grpc.credentials.createInsecure();
const tasks = new v1.TaskService(address, credentials);
const adaptation = new v1.AdaptationService(address, credentials);
const policies = new v1.PolicyService(address, credentials);

// -- arrays on the wire: dtype, shape, little-endian row-major bytes ---------------------------------------------

function floats(shape, values) {
  const data = Buffer.alloc(4 * values.length);
  values.forEach((value, i) => data.writeFloatLE(value, 4 * i));
  return { dtype: "DTYPE_FLOAT32", shape, data };
}

function bools(values) {
  return { dtype: "DTYPE_BOOL", shape: [values.length], data: Buffer.from(values.map(Number)) };
}

function numbers(array) {
  const [width, read] = { DTYPE_FLOAT32: [4, "readFloatLE"], DTYPE_FLOAT64: [8, "readDoubleLE"] }[array.dtype];
  return Array.from({ length: array.data.length / width }, (_, i) => array.data[read](width * i));
}

// -- the stream --------------------------------------------------------------------------------------------------

/** One Adapt stream: numbers what we say and hands out what we are told. */
class Session {
  #call = adaptation.Adapt();
  #sequence = 0;
  #answers = this.#call[Symbol.asyncIterator]();

  /** Says something; `kind` is a field of AdaptRequest's oneof. */
  send(kind, message) {
    this.#sequence += 1;
    console.log(`client ${this.#sequence} ${kind} ${brief(message)}`);
    this.#call.write({ sequence: this.#sequence, [kind]: message });
  }

  /** The next message of this kind. Others that were due meanwhile are printed too. */
  async receive(kind) {
    for (;;) {
      const { value, done } = await this.#answers.next();
      if (done) throw new Error(`the stream ended before ${kind}`);
      const said = value[value.message];
      console.log(`server ${value.sequence ?? 0} ${value.message} ${brief(said)}`);
      if (value.message === kind) return said;
    }
  }

  /** Lets go of the stream; a session that has not ended stays. */
  close() {
    this.#call.cancel();
  }
}

/** A message on one line: arrays and spaces by kind and shape, times as text. */
function brief(message) {
  const plain = (key, value) => {
    if (key === "kind" || key.startsWith("_")) return undefined; // which member of a oneof: seen from the member
    if (value?.type === "Buffer") return `${value.data.length} bytes`;
    if (value?.dtype) return `${value.dtype.slice(6).toLowerCase()}[${value.shape}]`;
    if (value?.box) return `box[${value.box.shape}]`;
    if (value?.nanos !== undefined) return new Date(Number(value.seconds) * 1000).toISOString();
    return typeof value === "number" ? Number(value.toPrecision(5)) : value;
  };
  return JSON.stringify(message, plain);
}

/** A unary call as a promise. */
function call(client, method, request) {
  const deadline = Date.now() + 30_000;
  return new Promise((resolve, reject) => {
    client[method](request, { deadline }, (error, response) => (error ? reject(error) : resolve(response)));
  });
}

async function download(name) {
  const chunks = [];
  for await (const { chunk } of policies.DownloadPolicy({ name })) chunks.push(chunk);
  return Buffer.concat(chunks);
}

// -- the policy file: safetensors with our header in its metadata (docs/policy-format.md) ------------------------

const DTYPES = { F32: ["<f4", 4], F64: ["<f8", 8] };

/** SHA-256 over names, dtypes, shapes and bytes, in order of name: what `Policy.hash` and the header say. */
function weightsHash(file) {
  const length = Number(file.readBigUInt64LE(0));
  const { __metadata__, ...tensors } = JSON.parse(file.subarray(8, 8 + length));
  const digest = createHash("sha256");
  for (const name of Object.keys(tensors).sort()) {
    const { dtype, shape, data_offsets: [begin, end] } = tensors[name];
    digest.update(`${name}:${DTYPES[dtype][0]}:[${shape.join(", ")}];`);
    digest.update(file.subarray(8 + length + begin, 8 + length + end));
  }
  return { header: JSON.parse(__metadata__.innerloop), hash: digest.digest("hex") };
}

// -- the server's environment ------------------------------------------------------------------------------------

async function simulated() {
  console.log("# A simulated session: the server runs the episodes.");
  const request = { family: "families/navigation-2d", split: "SPLIT_TEST", seed: 7, count: 1 };
  const { tasks: [task] } = await call(tasks, "SampleTasks", request);
  console.log(`task ${task.name}, goal (${numbers(task.parameters.goal).map((x) => x.toFixed(3)).join(", ")})`);

  const session = new Session();
  session.send("open", { learner, task: { name: task.name }, budget: { steps: 3 }, episodes_per_step: 20, seed: 1 });
  const { policy } = await session.receive("adapted");
  session.close();

  const file = await download(policy.name);
  const { header, hash } = weightsHash(file);
  if (file.length !== Number(policy.size_bytes)) throw new Error("the file is cut short");
  if (hash !== policy.hash || hash !== header.hash) throw new Error("the weights do not match their hash");
  console.log(`policy ${policy.name}: ${file.length} bytes, ${header.format}, sha256 of the weights matches: ${hash}`);

  const input = { observations: floats([2, 2], [0, 0, 0.1, -0.1]) };
  const { output } = await call(policies, "Act", { policy: policy.name, input, greedy: true });
  const [x0, y0, x1, y1] = numbers(output.actions).map((x) => x.toFixed(3));
  console.log(`act at (0, 0): (${x0}, ${y0}); at (0.1, -0.1): (${x1}, ${y1})`);
}

// -- an environment of our own -----------------------------------------------------------------------------------

async function owned() {
  console.log("# A client-owned session: the points are ours.");
  const goal = [0.3, -0.2];
  const rows = [0, 1, 2];
  const box = (shape, bound) => ({ box: { shape, low: Array(2).fill(-bound), high: Array(2).fill(bound) } });
  const session = new Session();
  session.send("open", {
    learner,
    client_environment: { observation_space: box([2], Infinity), action_space: box([2], 0.1) },
    budget: { steps: 1 },
    seed: 1,
  });
  await session.receive("opened");

  const moves = 3; // a short episode, so that a person can read the transcript
  let points = rows.map(() => [0, 0]);
  const seen = () => floats([rows.length, 2], points.flat());
  session.send("observe", { step: 0, row_ids: rows, observations: seen() });
  for (let move = 1; move <= moves; move += 1) {
    const actions = numbers((await session.receive("actions")).output.actions);
    points = points.map(([x, y], i) => [x + actions[2 * i], y + actions[2 * i + 1]]);
    const rewards = points.map(([x, y]) => -((x - goal[0]) ** 2) - (y - goal[1]) ** 2);
    const report = { step: 0, row_ids: rows, observations: seen(), rewards: floats([rows.length], rewards) };
    if (move < moves) {
      session.send("observe", report);
    } else {
      const cut = { truncated: bools(rows.map(() => true)), final_observations: seen(), report_only: true };
      session.send("observe", { ...report, ...cut });
    }
  }
  await session.receive("accepted");
  session.send("advance", {});
  await session.receive("adapted");
  session.close();
}

try {
  await simulated();
  await owned();
} catch (error) {
  // A status has a code and details; docs/protocol.md lists the reasons in its ErrorInfo.
  console.error("code" in error ? `${grpc.status[error.code]}: ${error.details}` : error);
  process.exitCode = 1;
} finally {
  for (const client of [tasks, adaptation, policies]) client.close();
}
