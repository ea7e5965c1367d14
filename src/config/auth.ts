import { isLoopback } from './loopback.js';

/** The algorithms with which a token may be signed. HMAC and `none` are missing: who can check those can also sign. */
export const ALGORITHMS = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
] as const;

/** The settings that the checks here read. */
interface Settings {
  readonly FEED_GRPC_ADDRESS: { readonly host: string; readonly text: string };
  readonly FEED_JWT_PUBLIC_KEY: string | undefined;
  readonly FEED_JWT_JWKS_URL: URL | undefined;
  readonly FEED_JWT_JWKS_CA: string | undefined;
  readonly FEED_JWT_JWKS_TOKEN: string | undefined;
  readonly FEED_JWT_ISSUER: string;
  readonly FEED_JWT_AUDIENCE: string;
  readonly FEED_POLICY_FILE: string | undefined;
}

/** The settings of TLS, as far as tokens and policies depend on them. */
export interface Transport {
  /** The gRPC port has TLS. */
  readonly hasTls: boolean;
  /** Clients must show a certificate. */
  readonly demandsCertificate: boolean;
  /** The operator accepts what is insecure. */
  readonly isInsecureAllowed: boolean;
}

/** Returns what is wrong with the settings of tokens and of the policy: a sentence for each problem. */
export function authProblems(settings: Settings, transport: Transport): string[] {
  const problems: string[] = [];
  const {
    FEED_JWT_PUBLIC_KEY: publicKey,
    FEED_JWT_JWKS_URL: jwksUrl,
    FEED_JWT_ISSUER: issuer,
    FEED_JWT_AUDIENCE: audience,
  } = settings;
  const hasTokens = publicKey !== undefined || jwksUrl !== undefined;
  if (publicKey !== undefined && jwksUrl !== undefined)
    problems.push('FEED_JWT_PUBLIC_KEY and FEED_JWT_JWKS_URL both say where keys are: set one');
  if (hasTokens && (issuer === '' || audience === ''))
    problems.push(
      'tokens need FEED_JWT_ISSUER and FEED_JWT_AUDIENCE: without them, a token that was issued for another service would do',
    );
  if (!hasTokens && (issuer !== '' || audience !== ''))
    problems.push(
      'FEED_JWT_ISSUER and FEED_JWT_AUDIENCE check nothing without FEED_JWT_PUBLIC_KEY or FEED_JWT_JWKS_URL',
    );
  for (const name of ['FEED_JWT_JWKS_CA', 'FEED_JWT_JWKS_TOKEN'] as const)
    if (settings[name] !== undefined && jwksUrl === undefined)
      problems.push(`${name} is for FEED_JWT_JWKS_URL, which is not set`);
  if (settings.FEED_POLICY_FILE !== undefined && !hasTokens && !transport.demandsCertificate)
    problems.push(
      'FEED_POLICY_FILE needs callers that are known: set FEED_JWT_PUBLIC_KEY, FEED_JWT_JWKS_URL or FEED_TLS_CLIENT_CA',
    );
  const { host, text } = settings.FEED_GRPC_ADDRESS;
  if (hasTokens && !transport.hasTls && !transport.isInsecureAllowed && !isLoopback(host))
    problems.push(
      `FEED_GRPC_ADDRESS=${text}: without TLS, everybody on the way could read and use the tokens. Set FEED_TLS_CERT and FEED_TLS_KEY, or FEED_INSECURE=allow if something else encrypts`,
    );
  return problems;
}
