import {
  type BeforeApplicationShutdown,
  Controller,
  Inject,
  Injectable,
  Module,
  Scope,
  type Type,
} from '@nestjs/common';
import { describe, expect, test } from 'vitest';
import { until } from '../../test/support/wait.js';
import type { Event } from '../src/index.js';
import { Feed, FeedModule, getFeedToken, InjectFeed, OnFeedEvent } from '../src/nest/index.js';
import { MemoryCheckpoint, startApp, startHandlers, startService } from './nest-app.js';

describe('FeedModule', () => {
  test('provides the client to every module, by its class', async () => {
    const { grpcAddress } = await startService();
    const seen: string[] = [];

    @Injectable()
    class Orders {
      constructor(private readonly feed: Feed) {}

      place(id: string) {
        return this.feed.upload('orders', [{ id }]);
      }
    }

    @Module({ providers: [Orders] })
    class OrdersModule {}

    @Controller()
    class Invoices {
      constructor(@InjectFeed() private readonly feed: Feed) {}

      @OnFeedEvent('orders', { from: 'earliest' })
      async onOrder({ id }: Event) {
        await this.feed.upload('invoices', [{ id }]);
      }

      @OnFeedEvent('invoices', { from: 'earliest' })
      onInvoice({ id }: Event) {
        seen.push(id);
      }
    }

    const { context } = await startApp(
      [OrdersModule, FeedModule.forRoot({ address: grpcAddress })],
      [],
      [Invoices],
    );
    expect(await context.get(Orders).place('17')).toMatchObject({ stored: 1 });
    await until(() => seen.length > 0, 'the invoice');
    expect(seen).toEqual(['17']);
  });

  test('closes the client after the hooks that may need it', async () => {
    const { grpcAddress } = await startService();
    const uploads: unknown[] = [];

    @Injectable()
    class Orders implements BeforeApplicationShutdown {
      constructor(private readonly feed: Feed) {}

      async beforeApplicationShutdown() {
        uploads.push(await this.feed.upload('orders', ['the last one']));
      }
    }

    const { context } = await startHandlers(grpcAddress, Orders);
    const feed = context.get(Feed);
    await context.close();
    expect(uploads).toMatchObject([{ stored: 1 }]);
    await expect(feed.upload('orders', ['too late'])).rejects.toMatchObject({
      status: 'CANCELLED',
    });
  });

  test('takes its options from other providers', async () => {
    const { grpcAddress } = await startService();

    @Injectable()
    class Settings {
      readonly address = grpcAddress;
    }

    @Module({ providers: [Settings], exports: [Settings] })
    class SettingsModule {}

    const { context } = await startApp([
      FeedModule.forRootAsync({
        imports: [SettingsModule],
        inject: [Settings],
        useFactory: async ({ address }: Settings) => ({ address }),
      }),
    ]);
    expect(await context.get(Feed).upload('orders', ['hello'])).toMatchObject({ stored: 1 });
  });

  test('is for the modules that import it, if it is not to be global', async () => {
    const { grpcAddress } = await startService();
    const feedModule = FeedModule.forRoot({ address: grpcAddress, isGlobal: false });

    @Injectable()
    class Orders {
      constructor(readonly feed: Feed) {}
    }

    @Module({ providers: [Orders] })
    class Without {}

    @Module({ imports: [feedModule], providers: [Orders] })
    class With {}

    const { context } = await startApp([With, feedModule]);
    expect(context.get(Orders).feed).toBe(context.get(Feed));
    await expect(startApp([Without, feedModule])).rejects.toThrow(/dependencies of the Orders/);
  });

  test('can be imported for several services, each with a name', async () => {
    const [nearby, remote] = await Promise.all([startService(), startService()]);
    const seen: string[] = [];

    @Injectable()
    class Orders {
      constructor(
        readonly near: Feed,
        @InjectFeed('far') readonly far: Feed,
      ) {}

      @OnFeedEvent('orders', { from: 'earliest' })
      onNear({ body }: Event) {
        seen.push(`near: ${body}`);
      }

      @OnFeedEvent('orders', { from: 'earliest', client: 'far' })
      onFar({ body }: Event) {
        seen.push(`far: ${body}`);
      }
    }

    const { context } = await startApp(
      [
        FeedModule.forRoot({ address: nearby.grpcAddress }),
        FeedModule.forRoot({ name: 'far', address: remote.grpcAddress }),
      ],
      [Orders],
    );
    const orders = context.get(Orders);
    expect(context.get(getFeedToken('far'))).toBe(orders.far);
    await orders.near.upload('orders', ['a']);
    await orders.far.upload('orders', ['b']);
    await until(() => seen.length >= 2, 'both events');
    expect(seen.toSorted()).toEqual(['far: b', 'near: a']);
  });

  test('makes checkpoints from tokens and factories', async () => {
    const { grpcAddress } = await startService();
    const saved = new Map<string, MemoryCheckpoint>();
    const named = (name: string): MemoryCheckpoint => {
      const checkpoint = new MemoryCheckpoint();
      saved.set(name, checkpoint);
      return checkpoint;
    };

    @Injectable()
    class OrdersCheckpoint extends MemoryCheckpoint {
      constructor() {
        super();
        saved.set('class', this);
      }
    }

    @Injectable()
    class Orders {
      @OnFeedEvent('orders', { checkpoint: 'orders checkpoint' })
      byName() {}

      @OnFeedEvent('orders', { checkpoint: OrdersCheckpoint })
      byClass() {}

      @OnFeedEvent('orders', { checkpoint: { inject: ['prefix'], useFactory: named } })
      byFactory() {}
    }

    const { context, log } = await startApp(
      [FeedModule.forRoot({ address: grpcAddress })],
      [
        Orders,
        OrdersCheckpoint,
        { provide: 'orders checkpoint', useFactory: () => named('name') },
        { provide: 'prefix', useValue: 'factory' },
      ],
    );
    const live = () => log.of('log').filter((line) => line.includes('is live')).length;
    await until(() => live() === 3, 'live watches');
    const { lastCursor } = await context.get(Feed).upload('orders', ['hello']);
    const cursors = () => [...saved].map(([name, one]) => [name, one.saved]);
    await until(() => cursors().every(([, cursor]) => cursor === lastCursor), 'saved checkpoints');
    expect(Object.fromEntries(cursors())).toEqual({
      name: lastCursor,
      class: lastCursor,
      factory: lastCursor,
    });
  });

  test('calls each handler of an instance once, whatever its tokens, inherited ones too', async () => {
    const { grpcAddress } = await startService();
    const seen: string[] = [];

    class Base {
      @OnFeedEvent('orders', { from: 'earliest' })
      @OnFeedEvent('invoices', { from: 'earliest' })
      onAny({ topic }: Event) {
        seen.push(`${this.constructor.name} ${topic}`);
      }
    }

    @Injectable()
    class Orders extends Base {}

    const { context } = await startApp(
      [FeedModule.forRoot({ address: grpcAddress })],
      [Orders, { provide: 'alias', useExisting: Orders }, { provide: 'nothing', useValue: null }],
    );
    await context.get(Feed).upload('orders', ['hello']);
    await context.get(Feed).upload('invoices', ['hello']);
    await context.get(Feed).upload('orders', ['hello']);
    await until(() => seen.length >= 3, 'the events');
    await context.close();
    expect(seen.toSorted()).toEqual(['Orders invoices', 'Orders orders', 'Orders orders']);
  });

  test('hands the events of several topics to one handler, in the order of the log', async () => {
    const { grpcAddress } = await startService();
    const seen: string[] = [];

    @Injectable()
    class Payments {
      @OnFeedEvent(['orders', 'bills.*'], { from: 'earliest' })
      onAny({ topic }: Event) {
        seen.push(topic);
      }
    }

    const { context } = await startHandlers(grpcAddress, Payments);
    const topics = ['bills.eu', 'orders', 'other', 'bills.us', 'orders'];
    for (const topic of topics) await context.get(Feed).upload(topic, ['hello']);
    await until(() => seen.length >= 4, 'the events');
    await context.close();
    expect(seen).toEqual(['bills.eu', 'orders', 'bills.us', 'orders']);
  });
});

describe('an app does not start', () => {
  const address = 'localhost:1';

  test.each([
    ['request', Scope.REQUEST],
    ['transient', Scope.TRANSIENT],
  ] as const)('with a handler in a provider of the scope %s', async (_, scope) => {
    @Injectable({ scope })
    class Orders {
      @OnFeedEvent('orders')
      onOrder() {}
    }
    await expect(startHandlers(address, Orders)).rejects.toThrow(
      'Orders.onOrder: @OnFeedEvent needs a provider of the default scope',
    );
  });

  test('with a handler of a client that is missing', async () => {
    @Injectable()
    class Orders {
      @OnFeedEvent('orders', { client: 'far' })
      onOrder() {}
    }
    await expect(startHandlers(address, Orders)).rejects.toThrow(
      'Orders.onOrder: no FeedModule named far is imported',
    );
  });

  test('with a checkpoint whose provider is missing', async () => {
    @Injectable()
    class Orders {
      constructor(@Inject('prefix') readonly prefix: string) {}

      @OnFeedEvent('orders', { checkpoint: MemoryCheckpoint as Type<MemoryCheckpoint> })
      onOrder() {}
    }
    const app = startApp(
      [FeedModule.forRoot({ address })],
      [Orders, { provide: 'prefix', useValue: '' }],
    );
    await expect(app).rejects.toThrow("Orders.onOrder: its checkpoint can't be made");
  });

  test('with the module imported twice under one name', async () => {
    const twice = [FeedModule.forRoot({ address }), FeedModule.forRoot({ address })];
    await expect(startApp(twice)).rejects.toThrow(
      'FeedModule without a name is imported twice: import it in the root module only, or give each a name',
    );
  });

  test("with an address that can't be parsed, or a heartbeat that is too short", async () => {
    @Injectable()
    class Orders {
      @OnFeedEvent('orders', { heartbeat: 10 })
      onOrder() {}
    }
    await expect(startHandlers('::', Orders)).rejects.toThrow(TypeError);
    await expect(startHandlers(address, Orders)).rejects.toThrow('heartbeat is at least 1,000');
  });
});
