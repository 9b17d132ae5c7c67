// A client in another language, with nothing but gRPC for Node and the protos of the daemon.
//
//   node client.mjs PROTOS ADDRESS MODEL
//
// Streams the answer to one chat, is refused one, and prints both as one JSON object.

import { readdirSync } from "node:fs";
import { join } from "node:path";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const [protos, address, model] = process.argv.slice(2);

const files = readdirSync(protos, { recursive: true }).filter((name) => name.endsWith(".proto"));
const definitions = protoLoader.loadSync(files, { includeDirs: [protos], enums: String });
const { leptond } = grpc.loadPackageDefinition(definitions);
const client = new leptond.v1.TextGenerationService(address, grpc.credentials.createInsecure());

function chat(sampling) {
  const content = [{ text: "Tell me something" }];
  const input = { messages: [{ role: "ROLE_USER", content }] };
  return client.chatStream({ model, input, sampling }, { deadline: Date.now() + 30_000 });
}

async function streamed() {
  const found = { text: "", tokenIds: [], numMessages: 0 };
  for await (const { chunk, info } of chat({ temperature: 0, maxTokens: 12 })) {
    found.numMessages += 1;
    found.text += chunk.text;
    found.tokenIds.push(...chunk.tokenIds);
    if (info) {
      found.finishReason = chunk.finishReason;
      found.completionTokens = info.usage.completionTokens;
    }
  }
  return found;
}

async function refused() {
  const call = chat({ temperature: -1 });
  let sawMetadata = false;
  call.on("metadata", () => {
    sawMetadata = true;
  });
  try {
    for await (const message of call) throw new Error(`not refused: ${JSON.stringify(message)}`);
  } catch (error) {
    const [bytes] = error.metadata.get("grpc-status-details-bin");
    const details = definitions["google.rpc.Status"].deserialize(bytes).details.map((any) => {
      const name = any.type_url.split("/").pop();
      return [name, definitions[name].deserialize(any.value)];
    });
    const code = grpc.status[error.code];
    return { code, details: error.details, sawMetadata, ...Object.fromEntries(details) };
  }
  throw new Error("not refused, and nothing came");
}

console.log(JSON.stringify({ streamed: await streamed(), refused: await refused() }));
client.close();
