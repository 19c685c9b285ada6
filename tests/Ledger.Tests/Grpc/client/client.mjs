// Calls what it reads: a line of JSON is a call, and so is its outcome. node client.mjs <address> <folder of .proto files>
import { createInterface } from 'node:readline';
import { join } from 'node:path';
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import protobuf from 'protobufjs';

const [address, folder] = process.argv.slice(2);
const definition = loadSync(['usage.proto', 'health.proto'].map(file => join(folder, file)), { keepCase: true, longs: Number, enums: String, defaults: false });
const Status = new protobuf.Root().loadSync(join(folder, 'rpc.proto'), { keepCase: true });
const services = grpc.loadPackageDefinition(definition);
const clients = new Map();

function clientOf(name, gzip) {
  const key = `${name} ${gzip}`;
  if (!clients.has(key)) {
    const Service = name.split('.').reduce((scope, part) => scope[part], services);
    const options = gzip ? { 'grpc.default_compression_algorithm': 2 } : {};
    clients.set(key, new Service(address, grpc.credentials.createInsecure(), options));
  }
  return clients.get(key);
}

function read(bytes) {
  const status = Status.lookupType('google.rpc.Status').decode(bytes);
  return {
    code: status.code,
    message: status.message,
    details: Object.fromEntries(status.details.map(any => {
      const type = any.type_url.split('/')[1];
      const message = Status.lookupType(type);
      return [type.split('.').at(-1), message.toObject(message.decode(any.value), { longs: Number })];
    })),
  };
}

for await (const line of createInterface({ input: process.stdin })) {
  const { number, service, method, request, metadata, deadlineMs, gzip } = JSON.parse(line);
  const sent = new grpc.Metadata();
  Object.entries(metadata ?? {}).forEach(([name, value]) => sent.set(name, value));
  const options = deadlineMs === null ? {} : { deadline: Date.now() + deadlineMs };
  const outcome = { number, headers: {}, code: 0 };
  let left = 2;
  const done = () => --left === 0 && console.log(JSON.stringify(outcome));
  const call = clientOf(service, gzip ?? false)[method](request, sent, options, (error, response) => {
    if (error) {
      outcome.code = error.code;
      outcome.message = error.details;
      const [details] = error.metadata?.get('grpc-status-details-bin') ?? [];
      outcome.status = details && read(details);
    }
    outcome.response = response;
    done();
  });
  call.on('metadata', received => Object.assign(outcome.headers, received.getMap()));
  call.on('status', done);
}
process.exit(0);
