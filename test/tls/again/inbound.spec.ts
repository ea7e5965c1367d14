// test/transport/inbound.spec.ts once more, with TLS on both sides (test/support/tls.ts).
process.env.FEED_TEST_TLS = '1';
await import('../../transport/inbound.spec.js');
