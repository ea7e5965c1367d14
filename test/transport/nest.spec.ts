import { status } from '@grpc/grpc-js';
import {
  type ArgumentsHost,
  type CallHandler,
  type CanActivate,
  Catch,
  type ExecutionContext,
  type ExceptionFilter,
  Injectable,
  type NestInterceptor,
} from '@nestjs/common';
import { APP_FILTER, APP_GUARD, APP_INTERCEPTOR } from '@nestjs/core';
import { RpcException } from '@nestjs/microservices';
import { finalize, type Observable, throwError, timeout } from 'rxjs';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test, vi } from 'vitest';
import { Call, streamed, type Streamed } from '../../src/grpc/transport/index.js';
import type { Frames } from '../../src/wire/frames.js';
import { type FeedClient, failure, take, upload } from '../support/client.js';
import { eventFrames, idsIn } from '../support/frames.js';
import { eventually, until } from '../support/wait.js';
import { type Handlers, serve } from './harness.js';

/** Small handlers of the three methods. */
const handlers: Handlers = {
  async *watch(_request, call) {
    yield eventFrames({ id: 'a' });
    await new Promise<void>((resolve) => call.signal.addEventListener('abort', () => resolve()));
  },
  async upload(frames) {
    let received = 0;
    for await (const batch of frames) received += idsIn(batch).length;
    return { received };
  },
  async *chat(frames) {
    for await (const { pieces } of frames)
      for (const piece of pieces) yield { bytes: piece, count: 1 };
  },
};

/** Calls each of the three methods, and returns the codes with which the calls ended. */
async function callAll(client: FeedClient): Promise<number[]> {
  const watched = await new Promise<number>((resolve) => {
    const call = client.Watch({ topic: 't' });
    call.once('data', () => resolve(status.OK));
    call.on('error', (error: { code: number }) => resolve(error.code));
    call.once('data', () => call.cancel());
  });
  const uploaded = await upload(client, [{ id: '1' }, { id: '2' }]);
  const chatted = await new Promise<number>((resolve) => {
    const call = client.Chat();
    call.on('data', () => call.end());
    call.on('end', () => resolve(status.OK));
    call.on('error', (error: { code: number }) => resolve(error.code));
    call.write({ text: 'hello' });
  });
  return [watched, uploaded.error?.code ?? status.OK, chatted];
}

@Injectable()
class GuardedCalls {
  readonly methods: string[] = [];
}

@Injectable()
class TokenGuard implements CanActivate {
  constructor(private readonly calls: GuardedCalls) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    await sleep(1);
    const call = context.switchToRpc().getContext<Call>();
    expect(call).toBeInstanceOf(Call);
    this.calls.methods.push(call.method);
    const [token] = call.metadata.get('token');
    if (token === 'unknown')
      throw new RpcException({ code: status.UNAUTHENTICATED, message: 'who are you?' });
    return token !== 'denied';
  }
}

describe("Nest's enhancers work on all three methods", () => {
  test('a guard with an injected provider runs once for each call', async () => {
    const { client, app } = await serve(handlers, {
      providers: [GuardedCalls, { provide: APP_GUARD, useClass: TokenGuard }],
    });
    expect(await callAll(client)).toEqual([0, 0, 0]);
    expect(app.get(GuardedCalls).methods).toEqual([
      '/feed.v1.FeedService/Watch',
      '/feed.v1.FeedService/UploadEvents',
      '/feed.v1.FeedService/Chat',
    ]);
  });

  test('a guard that returns false ends the call with PERMISSION_DENIED, and the handler never runs', async () => {
    const deny = { canActivate: () => false };
    const never = (): never => expect.unreachable();
    const { client } = await serve(
      { watch: never, upload: never, chat: never },
      { providers: [{ provide: APP_GUARD, useValue: deny }] },
    );
    expect(await callAll(client)).toEqual([7, 7, 7]);
  });

  test('a guard that throws a status ends the call with it', async () => {
    const refuse = {
      canActivate: () => {
        throw new RpcException({ code: status.UNAUTHENTICATED, message: 'who are you?' });
      },
    };
    const { client } = await serve(handlers, {
      providers: [{ provide: APP_GUARD, useValue: refuse }],
    });
    expect(await callAll(client)).toEqual([16, 16, 16]);
  });

  test('an interceptor runs once for each call, and sees its end', async () => {
    const seen: string[] = [];
    class Timing implements NestInterceptor {
      intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
        const name = context.getHandler().name;
        seen.push(`${name} began`);
        return next.handle().pipe(finalize(() => seen.push(`${name} ended`)));
      }
    }
    const { client, ended } = await serve(handlers, {
      providers: [{ provide: APP_INTERCEPTOR, useClass: Timing }],
    });
    const call = client.Watch({ topic: 't' });
    call.on('error', () => {});
    await new Promise((resolve) => call.once('data', resolve));
    await sleep(50);
    expect(seen).toHaveLength(1); // it has not ended, because the watch still streams
    call.cancel();
    await until(() => ended.length === 1, 'the end of the watch');
    await eventually(() => expect(seen).toHaveLength(2));
    seen.length = 0;
    await callAll(client);
    await until(() => seen.length === 6, 'three beginnings and three ends');
  });

  test('an interceptor that ends a call before its stream ends the stream as well', async () => {
    class Impatient implements NestInterceptor {
      intercept(_context: ExecutionContext, next: CallHandler): Observable<unknown> {
        return next.handle().pipe(timeout(200));
      }
    }
    let isOver = false;
    const { client, ended } = await serve(
      {
        async *watch(_request, call) {
          try {
            for (;;) {
              call.signal.throwIfAborted();
              yield eventFrames({ id: 'a' });
              await sleep(20);
            }
          } finally {
            isOver = true;
          }
        },
      },
      { providers: [{ provide: APP_INTERCEPTOR, useClass: Impatient }] },
    );
    const call = client.Watch({ topic: 't' });
    call.on('data', () => {});
    expect((await failure(call)).code).toBe(status.INTERNAL);
    await until(() => isOver, 'the end of the handler');
    await eventually(() => expect(ended).toHaveLength(1));
  });

  test('a handler of a watch that returns no stream ends the call with INTERNAL, not with OK', async () => {
    for (const answer of [undefined, { id: 'a' }]) {
      const { client, ended } = await serve({ watch: () => answer });
      expect((await failure(client.Watch({ topic: 't' }))).code).toBe(status.INTERNAL);
      await eventually(() =>
        expect(String(ended[0]?.error)).toContain('/feed.v1.FeedService/Watch'),
      );
    }
  });

  test('a response stream is pulled without a subscription if there is no interceptor, and with one if there is', async () => {
    class Passing implements NestInterceptor {
      intercept(_context: ExecutionContext, next: CallHandler): Observable<unknown> {
        return next.handle();
      }
    }
    for (const [providers, whileOpen] of [
      [[], 0],
      [[{ provide: APP_INTERCEPTOR, useClass: Passing }], 1],
    ] as const) {
      let subscriptions = 0;
      const watch = (request: Buffer, call: Call): Streamed => {
        const stream = streamed(handlers.watch!(request, call) as AsyncIterable<Frames>);
        vi.spyOn(stream, 'begin').mockImplementationOnce((subscriber) => {
          subscriptions++;
          stream.begin(subscriber); // the spy is used up, so this is the original
        });
        return stream;
      };
      const { client, ended } = await serve({ watch }, { providers: [...providers] });
      const call = client.Watch({ topic: 't' });
      call.on('error', () => {});
      await new Promise((resolve) => call.once('data', resolve));
      expect(subscriptions).toBe(whileOpen);
      call.cancel();
      await until(() => ended.length === 1, 'the end of the watch');
      await eventually(() => expect(subscriptions).toBe(1));
    }
  });

  test('an exception filter gets what a handler throws, at once or mid-stream', async () => {
    @Catch(RangeError)
    class RangeFilter implements ExceptionFilter<RangeError> {
      catch(exception: RangeError, _host: ArgumentsHost): Observable<never> {
        return throwError(() => ({
          code: status.OUT_OF_RANGE,
          message: `filtered: ${exception.message}`,
        }));
      }
    }
    const { client } = await serve(
      {
        async *watch() {
          yield eventFrames({ id: 'a' });
          await sleep(1);
          throw new RangeError('mid-stream');
        },
        upload: () => {
          throw new RangeError('at once');
        },
        async *chat(frames) {
          for await (const { pieces } of frames) {
            yield { bytes: pieces[0], count: 1 };
            throw new RangeError('mid-chat');
          }
        },
      },
      { providers: [{ provide: APP_FILTER, useClass: RangeFilter }] },
    );
    const filtered = (why: string) => ({ code: status.OUT_OF_RANGE, details: `filtered: ${why}` });
    expect(await failure(client.Watch({ topic: 't' }))).toMatchObject(filtered('mid-stream'));
    expect((await upload(client, [])).error).toMatchObject(filtered('at once'));
    const chat = client.Chat();
    chat.write({ text: 'hello' });
    expect(await failure(chat)).toMatchObject(filtered('mid-chat'));
  });

  test('take() of the test client leaves no call open', async () => {
    const { client, ended } = await serve(handlers);
    await take(client, { topic: 't' }, 1);
    await until(() => ended.length === 1, 'the end');
  });
});
