// Makes a token (JWT) for a try of Feed on one machine, signed with an Ed25519 key. docs/security.md has the commands around it.
// It is good for an hour. In production, an identity provider makes tokens.
//
//   node examples/token.mjs <file of the private key> <principal>
import { createPrivateKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { SignJWT } from 'jose';

const [file, principal] = process.argv.slice(2);
if (principal === undefined) {
  console.error('usage: node examples/token.mjs <file of the private key> <principal>');
  process.exit(64);
}
const token = await new SignJWT()
  .setProtectedHeader({ alg: 'EdDSA' })
  .setSubject(principal)
  .setIssuer('try') // FEED_JWT_ISSUER
  .setAudience('feed') // FEED_JWT_AUDIENCE
  .setExpirationTime('1h')
  .sign(createPrivateKey(readFileSync(file)));
console.log(token);
