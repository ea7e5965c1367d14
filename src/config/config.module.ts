import { type DynamicModule, Global, Module } from '@nestjs/common';
import { CONFIG, type Config } from './config.js';
import { CONNECTION_LIMITS, connectionLimits } from './descriptors.js';

/** Provides every module with the settings (CONFIG) and the connection limits (CONNECTION_LIMITS). */
@Global()
@Module({})
export class ConfigModule {
  static of(config: Config): DynamicModule {
    return {
      module: ConfigModule,
      providers: [
        { provide: CONFIG, useValue: config },
        { provide: CONNECTION_LIMITS, useFactory: () => connectionLimits() },
      ],
      exports: [CONFIG, CONNECTION_LIMITS],
    };
  }
}
