import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { Injectable } from '@nestjs/common';

/** Tells this process from the other replicas of the service, and from those that ran before it. */
@Injectable()
export class ReplicaName {
  /** Six characters that the process has chosen at random at its start, such as `3f9c2a`. */
  readonly token = randomBytes(3).toString('hex');
  /** The machine's name, which in Kubernetes is the pod's, and the token: `feed-0/3f9c2a`. */
  readonly text = `${hostname()}/${this.token}`;
}
