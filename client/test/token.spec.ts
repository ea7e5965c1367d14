import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { describe, expect, onTestFinished, test } from 'vitest';
import {
  type ChatState,
  ForbiddenError,
  type UploadError,
  type WatchState,
} from '@feed-events/client';
import { type Claims, Issuer } from '../../test/support/tokens.js';
import { temporaryDirectory } from '../../test/support/service.js';
import { until, within } from '../../test/support/wait.js';
import { events, eventThen, ScriptedServer, silence, status } from './scripted-server.js';
import { bodies, client, numbers, Subject, take } from './service.js';

/** UNAUTHENTICATED, as a server says it. */
const UNAUTHENTICATED = 16;
const refusal = (reason = 'UNAUTHENTICATED') => status(UNAUTHENTICATED, 'who are you?', { reason });
const expired = refusal('TOKEN_EXPIRED');

/** A function that gives these tokens, and the last one again and again. */
function inTurn(...tokens: string[]) {
  let asked = 0;
  return () => tokens[Math.min(asked++, tokens.length - 1)];
}

const shownTo = ({ calls }: ScriptedServer): unknown[] =>
  calls.map(({ authorization }) => String(authorization).replace('Bearer ', ''));

describe('a token that the server took', () => {
  test.each([
    ['TOKEN_EXPIRED', expired],
    ['UNAUTHENTICATED', refusal()],
  ])('and that ends a watch with %s is replaced, and the watch goes on', async (_, end) => {
    const server = await ScriptedServer.start(eventThen('a', end), events('b'));
    const feed = client(server.address, { token: inTurn('old', 'new') });
    expect(bodies(await take(feed.watch('t'), 2))).toEqual(['a', 'b']);
    expect(shownTo(server)).toEqual(['old', 'new']);
  });

  test('and that is not replaced at once is shown until it is', async () => {
    const server = await ScriptedServer.start(
      eventThen('a', expired),
      ...Array.from({ length: 5 }, () => expired),
      events('b'),
    );
    const tokens = ['old', ...Array.from({ length: 5 }, () => 'old'), 'new'];
    const feed = client(server.address, {
      token: inTurn(...tokens),
      retry: { initial: 1, max: 5 },
    });
    expect(bodies(await take(feed.watch('t'), 2))).toEqual(['a', 'b']);
    expect(shownTo(server)).toEqual(tokens);
  });

  test('ends a watch once it has expired, if it is a fixed one', async () => {
    const server = await ScriptedServer.start(eventThen('a', expired), events('b'));
    const watch = take(client(server.address, { token: 'fixed' }).watch('t'), 2);
    await expect(watch).rejects.toThrow(/who are you\?.*fixed token.*file or a function/);
    await expect(watch).rejects.toBeInstanceOf(ForbiddenError);
    expect(server.calls).toHaveLength(1);
  });
});

test('a certificate that has expired says nothing of the token, not even of a fixed one', async () => {
  const ended = refusal('CERTIFICATE_EXPIRED');
  const server = await ScriptedServer.start(eventThen('a', ended), ended, ended, events('b'));
  const feed = client(server.address, { token: 'fixed' });
  expect(bodies(await take(feed.watch('t'), 2))).toEqual(['a', 'b']);
});

describe('a token that the server never took', () => {
  test('ends the call when it is a fixed one', async () => {
    const server = await ScriptedServer.start(refusal());
    const feed = client(server.address, { token: 'fixed' });
    await expect(take(feed.watch('t'), 1)).rejects.toThrow('who are you?');
    await expect(feed.upload('t', ['a'])).rejects.toMatchObject({ status: 'UNAUTHENTICATED' });
    expect(server.calls).toHaveLength(2);
  });

  test('is replaced once', async () => {
    const server = await ScriptedServer.start(refusal(), events('a'));
    const feed = client(server.address, { token: inTurn('stale', 'new') });
    expect(bodies(await take(feed.watch('t'), 1))).toEqual(['a']);
  });

  test.each([
    ['the same', ['old', 'bad', 'bad']],
    ['another', ['old', 'bad', 'worse']],
  ])('and is refused twice in a row ends the call: %s', async (_, tokens) => {
    const server = await ScriptedServer.start(eventThen('a', expired), refusal(), refusal());
    const states: WatchState['name'][] = [];
    const feed = client(server.address, { token: inTurn(...tokens) });
    const watch = feed.watch('t', { onState: ({ name }) => states.push(name) });
    await expect(take(watch, 2)).rejects.toThrow(
      'who are you? (the server has refused 2 new tokens in a row)',
    );
    expect(shownTo(server)).toEqual(tokens);
    expect(states.filter((name) => name === 'reconnecting')).toHaveLength(2);
  });

  test('is counted once for calls that began together', async () => {
    const server = await ScriptedServer.start(
      ...Array.from({ length: 10 }, () => refusal()),
      silence,
    );
    const feed = client(server.address, { token: () => 'new' });
    const failed: unknown[] = [];
    for (let i = 0; i < 10; i++)
      take(feed.watch(`t${i}`), 1).catch((error: unknown) => failed.push(error));
    await until(() => server.calls.length === 20, 'second tries of all');
    expect(failed).toEqual([]);
    feed.close();
  });
});

test('a token in place of the path of its file is in no error', async () => {
  const server = await ScriptedServer.start();
  const file = 'eyJhbGci.eyJzdWIi.c2VjcmV0';
  const feed = client(server.address, { token: { file } });
  const reason = Promise.withResolvers<unknown>();
  const watch = feed.watch('t', {
    onState: (state) => {
      if (state.name === 'reconnecting') reason.resolve(state.reason);
    },
  });
  take(watch, 1).catch(() => {});
  const text = inspect(await within(reason.promise, 'the reason'), { showHidden: true });
  expect(text).toContain('the file of the token');
  expect(text).toContain('ENOENT (no such file or directory)');
  expect(text).not.toContain(file);
  feed.close();
});

describe('with a service whose tokens last some seconds', () => {
  /** A service, and a client whose token lasts `seconds` and is made anew each time that `next` is asked. */
  async function subject() {
    const issuer = await Issuer.create();
    const { address } = await Subject.start({
      ...issuer.settings(),
      FEED_JWT_CLOCK_TOLERANCE: '0s',
    });
    return { address, token: (claims?: Claims) => issuer.token(claims) };
  }

  test('a watch, an upload and a chat outlive several tokens of a file, and nothing is lost or comes twice', async () => {
    const { address, token } = await subject();
    const file = join(temporaryDirectory(), 'token');
    let tokens = 0;
    const renew = async (expiresIn: number): Promise<void> => {
      tokens++;
      // Not in place: the client may read it at that moment.
      writeFileSync(`${file}.next`, `${await token({ expiresIn })}\n`);
      renameSync(`${file}.next`, file);
    };
    await renew(8);
    let renewal = Promise.resolve();
    const timer = setInterval(() => {
      renewal = renewal.then(() => renew(8));
    }, 2_000);
    onTestFinished(() => clearInterval(timer));
    const feed = client(address, { token: { file } });
    const reasons = { watch: [] as unknown[], chat: [] as unknown[] };
    const noteIn = (list: unknown[]) => (state: WatchState | ChatState) => {
      if (state.name === 'reconnecting') list.push(state.reason.reason);
    };
    const watch = feed.watch('t', { from: 'earliest', onState: noteIn(reasons.watch) });
    const chat = feed.chat('lobby', { from: 'me', onState: noteIn(reasons.chat) });
    const listening = (async () => {
      for await (const _ of chat);
    })();
    const count = 300;
    async function* slowly() {
      for (const body of numbers(0, count)) {
        yield body;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
    const [taken, { stored }] = await within(
      Promise.all([take(watch, count), feed.upload('t', slowly())]),
      'all events',
      120_000,
    );
    expect(stored).toBe(count);
    expect(bodies(taken)).toEqual(numbers(0, count));
    expect(tokens).toBeGreaterThan(4);

    // A chat whose token expires just while it leaves is rightly told so. This one leaves with a token that lasts.
    clearInterval(timer);
    await renewal;
    const before = reasons.chat.length;
    await renew(600);
    await until(() => reasons.chat.length > before, 'the end of the token before it');
    await chat.send('still here');
    await chat.leave();
    await listening;
    for (const list of Object.values(reasons)) {
      expect(list.length).toBeGreaterThan(1);
      expect(new Set(list)).toEqual(new Set(['TOKEN_EXPIRED']));
    }
    feed.close();
  });

  test('tokens of another issuer are refused, and the client gives up', async () => {
    const { address } = await subject();
    const other = await Issuer.create();
    const feed = client(address, { token: () => other.token() });
    await expect(take(feed.watch('t'), 1)).rejects.toThrow('has refused 2 new tokens in a row');
    const error = await feed.upload('t', ['a']).catch((failure: UploadError) => failure);
    expect(error).toMatchObject({ status: 'UNAUTHENTICATED', stored: 0 });
    feed.close();
  });
});
