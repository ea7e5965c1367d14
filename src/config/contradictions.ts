import { isDeepStrictEqual } from 'node:util';
import { authProblems } from './auth.js';
import { leastReceiveBytes } from './body-lines.js';
import { type Settings, SETTINGS } from './settings.js';

const MIB = 2 ** 20;

/** Returns where settings do not go together, each of which may be right by itself: a sentence for each problem. */
export function contradictions(settings: Settings): string[] {
  return [
    ...engineProblems(settings),
    ...tlsProblems(settings),
    ...authProblems(settings),
    ...limitProblems(settings),
  ];
}

function engineProblems(settings: Settings): string[] {
  const { FEED_ENGINE: engine, FEED_DURABILITY: durability, FEED_NATS_SERVERS: servers } = settings;
  const problems: string[] = [];
  if (engine === 'memory' && durability === 'fsync')
    problems.push(
      'FEED_DURABILITY=fsync: the memory engine keeps nothing on disk; use FEED_ENGINE=lmdb',
    );
  if (engine === 'jetstream' && servers.length === 0)
    problems.push(
      'FEED_ENGINE=jetstream needs FEED_NATS_SERVERS, such as nats://nats-0:4222,nats://nats-1:4222',
    );
  const idle = engine === 'jetstream' ? [] : natsSettings(settings);
  if (idle.length > 0)
    problems.push(
      `${idle.join(' and ')} would do nothing with FEED_ENGINE=${engine}, which gives each replica a log of its own: set FEED_ENGINE=jetstream, or leave them out`,
    );
  return problems;
}

const DEFAULTS = SETTINGS.parse({});

/** Returns the names of the settings of NATS that differ from their defaults. */
function natsSettings(settings: Settings): string[] {
  return (Object.keys(SETTINGS.shape) as (keyof Settings)[]).filter(
    (name) => name.startsWith('FEED_NATS_') && !isDeepStrictEqual(settings[name], DEFAULTS[name]),
  );
}

function tlsProblems(settings: Settings): string[] {
  const problems: string[] = [];
  if ((settings.FEED_TLS_CERT === undefined) !== (settings.FEED_TLS_KEY === undefined)) {
    const missing = settings.FEED_TLS_CERT === undefined ? 'FEED_TLS_CERT' : 'FEED_TLS_KEY';
    problems.push(
      `FEED_TLS_CERT and FEED_TLS_KEY belong together, and ${missing} is not set: set both or neither`,
    );
  } else if (settings.FEED_TLS_CLIENT_CA !== undefined && settings.FEED_TLS_CERT === undefined) {
    problems.push(
      'FEED_TLS_CLIENT_CA has clients show a certificate, which takes TLS: set FEED_TLS_CERT and FEED_TLS_KEY, too',
    );
  }
  if ((settings.FEED_NATS_TLS_CERT === undefined) !== (settings.FEED_NATS_TLS_KEY === undefined))
    problems.push('FEED_NATS_TLS_CERT and FEED_NATS_TLS_KEY belong together: set both or neither');
  return problems;
}

function limitProblems(settings: Settings): string[] {
  const problems: string[] = [];
  if (settings.FEED_STREAM_WINDOW > settings.FEED_SESSION_WINDOW)
    problems.push(
      'FEED_STREAM_WINDOW is larger than FEED_SESSION_WINDOW, which holds all streams of a connection',
    );
  if (settings.FEED_SESSION_WINDOW > settings.FEED_RECEIVE_BYTES)
    problems.push(
      'FEED_SESSION_WINDOW is larger than FEED_RECEIVE_BYTES, which holds what all connections send',
    );
  const least = leastReceiveBytes(settings.FEED_MAX_EVENT_BYTES);
  if (settings.FEED_RECEIVE_BYTES < least)
    problems.push(
      `FEED_RECEIVE_BYTES is too small for FEED_MAX_EVENT_BYTES: the largest event, as a line over HTTP, could never come in whole. Set FEED_RECEIVE_BYTES to ${Math.ceil(least / MIB)}MiB or more, or lower FEED_MAX_EVENT_BYTES`,
    );
  if (settings.FEED_UNSTORED_BYTES_PER_UPLOAD > settings.FEED_UNSTORED_BYTES)
    problems.push(
      'FEED_UNSTORED_BYTES_PER_UPLOAD is larger than FEED_UNSTORED_BYTES, which is for all uploads together',
    );
  if (settings.FEED_QUOTA_BYTES > 0 && settings.FEED_RETENTION_MAX_BYTES > 0)
    problems.push(
      'FEED_QUOTA_BYTES refuses uploads where FEED_RETENTION_MAX_BYTES removes the oldest events: set one of them',
    );
  return problems;
}
