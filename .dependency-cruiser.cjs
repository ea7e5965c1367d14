// The arrows of docs/architecture.md: wire <- repository, broker <- feed <- auth <- grpc, http, and metrics reads feed
// and grpc; config, telemetry and the generated types are open to all.
const room = (name) => `^src/${name}/`;
const only = (name, ...allowed) => ({
  name: `${name}-imports-one-way`,
  severity: 'error',
  comment: `src/${name} may import ${['itself', ...allowed].join(', ')} and nothing else of src`,
  from: { path: room(name) },
  to: { path: '^src/', pathNot: [name, ...allowed].map(room) },
});
const open = ['config', 'telemetry', 'gen'];

module.exports = {
  forbidden: [
    only('gen'),
    only('config'),
    only('telemetry', 'config'),
    only('wire'),
    only('nats', ...open),
    only('repository', 'wire', 'nats', ...open),
    only('broker', 'wire', 'nats', ...open),
    only('feed', 'wire', 'repository', 'broker', ...open),
    only('tls', ...open),
    only('auth', 'wire', 'feed', ...open),
    only('grpc', 'wire', 'feed', 'auth', 'tls', ...open),
    only('http', 'wire', 'feed', 'auth', 'tls', ...open),
    only('metrics', 'wire', 'feed', 'repository', 'broker', 'grpc', ...open),
    {
      name: 'transport-knows-nothing-of-the-feed',
      severity: 'error',
      from: { path: '^src/grpc/transport/' },
      to: { path: '^src/', pathNot: ['^src/grpc/transport/', '^src/wire/(frames|pump)\\.ts$'] },
    },
    {
      name: 'wire-is-bytes-alone',
      severity: 'error',
      comment: 'no Nest, no I/O',
      from: { path: room('wire') },
      to: { path: ['node_modules', '^(node:)?(fs|net|http|http2|stream)(/|$)'] },
    },
    {
      name: 'feed-knows-no-transport',
      severity: 'error',
      from: { path: room('feed') },
      to: { path: ['@grpc', '@nestjs/microservices', 'express'] },
    },
    {
      name: 'auth-knows-no-transport',
      severity: 'error',
      from: { path: room('auth') },
      to: { path: ['@grpc', '@nestjs/microservices', 'express'] },
    },
    {
      name: 'prometheus-in-one-room',
      severity: 'error',
      comment: 'all other rooms count in plain numbers',
      from: { path: '^src/', pathNot: room('metrics') },
      to: { path: 'prom-client' },
    },
    {
      name: 'opentelemetry-in-one-file',
      severity: 'error',
      comment: 'it is loaded only where calls are traced',
      from: { path: '^src/', pathNot: '^src/telemetry/otlp-tracing\\.ts$' },
      to: { path: '@opentelemetry' },
    },
    {
      name: 'client-stands-alone',
      severity: 'error',
      comment: 'client/ speaks the contract and imports nothing of the service',
      from: { path: '^client/src/' },
      to: { path: '^(src|test|bench|console)/' },
    },
    {
      name: 'console-stands-alone',
      severity: 'error',
      comment:
        'console/ speaks the HTTP door and imports nothing else of the project, nor anything of node',
      from: { path: '^console/src/' },
      to: { path: ['^(src|client|test|bench)/', '^node:'] },
    },
    {
      name: 'what-the-console-asks-knows-nothing-of-the-page',
      severity: 'error',
      from: { path: '^console/src/api/' },
      to: { path: '^console/src/', pathNot: '^console/src/api/' },
    },
    {
      name: 'client-library-knows-no-command-line-and-no-nest',
      severity: 'error',
      from: { path: '^client/src/', pathNot: '^client/src/(cli|nest)/' },
      to: { path: ['^client/src/(cli|nest)/', '@nestjs', 'commander'] },
    },
    {
      name: 'no-circles',
      severity: 'error',
      from: { path: '^((client|console)/)?src/' },
      to: { circular: true },
    },
    {
      name: 'no-orphans',
      severity: 'error',
      from: { orphan: true, path: '^src/', pathNot: ['\\.d\\.ts$', '^src/gen/'] },
      to: {},
    },
    {
      name: 'development-only',
      severity: 'error',
      from: { path: '^src/' },
      to: { dependencyTypes: ['npm-dev', 'npm-no-pkg', 'npm-unknown'] },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default'],
    },
  },
};
