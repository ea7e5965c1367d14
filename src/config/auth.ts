import { isLoopback } from './loopback.js';
import type { Settings } from './settings.js';

/** Returns what is wrong with the settings of tokens and of the policy: a sentence for each problem. */
export function authProblems(settings: Settings): string[] {
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
  if (
    settings.FEED_POLICY_FILE !== undefined &&
    !hasTokens &&
    settings.FEED_TLS_CLIENT_CA === undefined
  )
    problems.push(
      'FEED_POLICY_FILE needs callers that are known: set FEED_JWT_PUBLIC_KEY, FEED_JWT_JWKS_URL or FEED_TLS_CLIENT_CA',
    );
  const isProtected = settings.FEED_TLS_CERT !== undefined || settings.FEED_INSECURE === 'allow';
  if (hasTokens && !isProtected)
    for (const name of ['FEED_GRPC_ADDRESS', 'FEED_HTTP_ADDRESS'] as const) {
      const { host, text } = settings[name];
      if (!isLoopback(host))
        problems.push(
          `${name}=${text}: without TLS, everybody on the way could read and use the tokens. Set FEED_TLS_CERT and FEED_TLS_KEY, or FEED_INSECURE=allow if something else encrypts`,
        );
    }
  return problems;
}
