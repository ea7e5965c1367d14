import { randomUUID } from 'node:crypto';
import { nkeys } from '@nats-io/transport-node';

type Key = ReturnType<typeof nkeys.createUser>;

/** What a user may do, as a NATS JWT has it. */
interface Permissions {
  readonly pub?: { readonly allow: readonly string[] };
  readonly sub?: { readonly allow: readonly string[] };
}

export interface Account {
  readonly key: Key;
  readonly jwt: string;
}

/** Signs claims as `nsc` does: a JWT whose algorithm is NATS's own. */
function sign(claims: object, by: Key): string {
  const iat = Math.floor(Date.now() / 1000);
  const signed = [
    { typ: 'JWT', alg: 'ed25519-nkey' },
    { jti: randomUUID(), iat, iss: by.getPublicKey(), ...claims },
  ]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.');
  return `${signed}.${Buffer.from(by.sign(Buffer.from(signed))).toString('base64url')}`;
}

/** The key that a server's accounts are signed with. Servers take the users of accounts that their operator has signed. */
export class Operator {
  private readonly key = nkeys.createOperator();
  readonly system = this.account('SYS', {});

  /** Makes an account. By default it has JetStream without limits; `limits` are those of a NATS account JWT. */
  account(
    name: string,
    limits: object = { mem_storage: -1, disk_storage: -1, streams: -1, consumer: -1 },
  ): Account {
    const key = nkeys.createAccount();
    const none = { subs: -1, conn: -1, leaf: -1, imports: -1, exports: -1, data: -1, payload: -1 };
    const nats = {
      type: 'account',
      version: 2,
      limits: { ...none, wildcards: true, ...limits },
      default_permissions: { pub: {}, sub: {} },
    };
    return { key, jwt: sign({ sub: key.getPublicKey(), name, nats }, this.key) };
  }

  /** Returns the part of a server's configuration that makes it know these accounts. */
  configuration(...accounts: readonly Account[]): string {
    const system = this.system.key.getPublicKey();
    const nats = { type: 'operator', version: 2, system_account: system };
    const jwt = sign({ sub: this.key.getPublicKey(), name: 'test', nats }, this.key);
    const known = [this.system, ...accounts].map(
      (account) => `${account.key.getPublicKey()}: ${account.jwt}`,
    );
    return `operator: ${jwt}
system_account: ${system}
resolver: MEMORY
resolver_preload: { ${known.join(', ')} }`;
  }
}

/**
 * Makes a user, and returns its creds file.
 *
 * @param expires when its JWT expires, in seconds from now; never, if it is undefined
 */
export function credsOf(
  account: Account,
  { pub, sub, expires }: Permissions & { readonly expires?: number } = {},
): string {
  const user = nkeys.createUser();
  const nats = {
    type: 'user',
    version: 2,
    pub: pub ?? {},
    sub: sub ?? {},
    subs: -1,
    data: -1,
    payload: -1,
  };
  const exp = expires === undefined ? {} : { exp: Math.floor(Date.now() / 1000) + expires };
  const jwt = sign({ sub: user.getPublicKey(), name: 'feed', nats, ...exp }, account.key);
  return `-----BEGIN NATS USER JWT-----
${jwt}
------END NATS USER JWT------

************************* IMPORTANT *************************
NKEY Seed printed below can be used to sign and prove identity.

-----BEGIN USER NKEY SEED-----
${new TextDecoder().decode(user.getSeed())}
------END USER NKEY SEED------
`;
}
