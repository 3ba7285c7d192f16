/**
 * How two hosts know each other: TLS with certificates on both sides, or with a key that both have. Plain TCP stays on the
 * loopback interface unless somebody insists.
 */
import { isIP, type Server, type Socket, connect as tcpConnect, createServer as tcpServer } from 'node:net';
import { type ConnectionOptions, type TLSSocket, connect as tlsConnect, createServer as tlsServer } from 'node:tls';
import { OperatingError, UsageError } from '../cli/failure.js';
import { readInputFile } from '../cli/machine-flags.js';

export interface SecurityFlags {
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsCa?: string;
  readonly pskFile?: string;
  readonly insecure?: boolean;
}

export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

const PSK_IDENTITY = 'vmtape';
/** Ciphers of TLS 1.2 with a shared key and forward secrecy. */
const PSK_CIPHERS = 'ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-AES256-GCM-SHA384:PSK-AES256-GCM-SHA384';
const LEAST_KEY_BYTES = 16;
const CONNECT_MILLISECONDS = 10_000;

/** @throws UsageError */
export function parseEndpoint(text: string, what: string): Endpoint {
  const match = /^(?:\[(?<six>[0-9a-f:.]+)\]|(?<host>[^:[\]]+)):(?<port>\d{1,5})$/i.exec(text)?.groups;
  const port = Number(match?.port);
  const host = match?.six ?? match?.host;
  if (host === undefined || port > 65535) {
    throw new UsageError(`${what} ${JSON.stringify(text)} is no address. Write HOST:PORT, such as 127.0.0.1:7070.`);
  }
  return { host, port };
}

const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));

/** The options of both sides; undefined for plain TCP. @throws UsageError */
function tlsOptions(flags: SecurityFlags, { host }: Endpoint): ConnectionOptions | undefined {
  const { tlsCert, tlsKey, tlsCa, pskFile, insecure = false } = flags;
  const certificates = [tlsCert, tlsKey, tlsCa].filter((file) => file !== undefined);
  if (certificates.length > 0 && pskFile !== undefined) {
    throw new UsageError('--psk and certificates exclude each other. Choose one.');
  }
  if (pskFile !== undefined) {
    const key = sharedKey(pskFile);
    return {
      ciphers: PSK_CIPHERS,
      maxVersion: 'TLSv1.2',
      pskCallback: (() => ({ psk: key, identity: PSK_IDENTITY })) as never,
      checkServerIdentity: () => undefined,
    };
  }
  if (certificates.length === 0) {
    if (insecure || isLoopback(host)) return undefined;
    throw new UsageError(
      `${host} is not this host, and plain TCP is read and changed by whoever is in between. ` +
        'Give --psk FILE or --tls-cert, --tls-key and --tls-ca; or --insecure.',
    );
  }
  if (tlsCert === undefined || tlsKey === undefined || tlsCa === undefined) {
    throw new UsageError('TLS needs all of --tls-cert, --tls-key and --tls-ca: each side shows a certificate.');
  }
  const read = (file: string, what: string): Buffer => Buffer.from(readInputFile(file, what));
  return {
    cert: read(tlsCert, 'the certificate'),
    key: read(tlsKey, 'the key'),
    ca: read(tlsCa, 'the certificate authority'),
    minVersion: 'TLSv1.3',
  };
}

function sharedKey(file: string): Buffer {
  const text = new TextDecoder().decode(readInputFile(file, 'the key file')).trim();
  const key = Buffer.from(text, 'hex');
  if (/^([0-9a-f]{2})+$/i.test(text) && key.length >= LEAST_KEY_BYTES) return key;
  throw new UsageError(
    `${file}: a key is at least ${LEAST_KEY_BYTES} bytes in hex. Make one: openssl rand -hex 32 > ${file}`,
  );
}

/** @throws UsageError, OperatingError when nobody is there, or is not who we expect. */
export async function connectTo(endpoint: Endpoint, flags: SecurityFlags): Promise<Socket> {
  const tls = tlsOptions(flags, endpoint);
  const { host, port } = endpoint;
  return await new Promise<Socket>((resolve, reject) => {
    const socket: Socket = tls === undefined ? tcpConnect({ host, port }) : tlsConnect({ ...tls, host, port });
    const fail = (problem: string): void => {
      socket.destroy();
      reject(new OperatingError(`${host}:${port}: ${problem}. Is vmtape receive running there, with the same keys?`));
    };
    socket.setTimeout(CONNECT_MILLISECONDS, () => fail(`no answer within ${CONNECT_MILLISECONDS / 1000} seconds`));
    socket.once('error', (error) => fail(error.message));
    socket.once(tls === undefined ? 'connect' : 'secureConnect', () => {
      socket.setTimeout(0);
      socket.removeAllListeners('error');
      resolve(socket);
    });
  });
}

/** @param onFailure hears of those that could not be let in. @throws UsageError, OperatingError */
export async function listenAt(
  endpoint: Endpoint,
  flags: SecurityFlags,
  onConnection: (socket: Socket) => void,
  onFailure: (problem: string) => void,
): Promise<Server> {
  const tls = tlsOptions(flags, endpoint);
  const server: Server =
    tls === undefined
      ? tcpServer({ pauseOnConnect: false }, onConnection)
      : tlsServer(serverOptions(tls, flags), (socket: TLSSocket) => onConnection(socket));
  server.on('tlsClientError', (error: Error) => onFailure(error.message));
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(
        new OperatingError(`${endpoint.host}:${endpoint.port}: ${cause.message}. Choose another address.`, { cause }),
      ),
    );
    server.listen(endpoint.port, endpoint.host, resolve);
  });
  return server;
}

function serverOptions(tls: ConnectionOptions, { pskFile }: SecurityFlags): object {
  if (pskFile === undefined) return { ...tls, requestCert: true, rejectUnauthorized: true };
  const { psk } = (tls.pskCallback as unknown as () => { psk: Buffer })();
  const { pskCallback: _, checkServerIdentity: __, ...rest } = tls;
  return { ...rest, pskCallback: (_socket: unknown, identity: string) => (identity === PSK_IDENTITY ? psk : null) };
}
