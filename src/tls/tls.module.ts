import {
  type DynamicModule,
  Global,
  Inject,
  Module,
  type OnApplicationShutdown,
} from '@nestjs/common';
import type { Certificates } from './certificates.js';

/** Nest's token for the Certificates; undefined if the service has no TLS. */
export const CERTIFICATES = Symbol('Certificates');

/** Provides every module with the certificates. */
@Global()
@Module({})
export class TlsModule implements OnApplicationShutdown {
  static of(certificates: Certificates | undefined): DynamicModule {
    return {
      module: TlsModule,
      providers: [{ provide: CERTIFICATES, useValue: certificates }],
      exports: [CERTIFICATES],
    };
  }

  constructor(@Inject(CERTIFICATES) private readonly certificates: Certificates | undefined) {}

  onApplicationShutdown(): void {
    this.certificates?.close();
  }
}
