import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream, type WriteStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

/** A program that ended by itself, such as by a kill, starts again after this long (milliseconds). */
const RESTART_DELAY = 10_000;
const READY_TIMEOUT = 60_000;
const READY_INTERVAL = 50;
/** The error of a program that does not become ready shows this many of its lines. */
const NEWEST_LINES = 5;

export interface Command {
  readonly name: string;
  readonly program: string;
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** Answers with 200 when the program is ready. */
  readonly readyUrl: string;
  /** All lines that the program writes are appended to this file. */
  readonly logFile: string;
  /** Returns true for a line that is printed as well. `isRunning` is false until the program is ready, and while it ends. */
  readonly isPrinted: (line: string, isRunning: boolean) => boolean;
}

/** Prints a line of a program, or of the cluster itself. */
export function say(name: string, line: string): void {
  process.stdout.write(`${name.padEnd(7)} | ${line}\n`);
}

/**
 * One program of the cluster. It is in a process group of its own, so that a Ctrl-C in the terminal reaches the cluster
 * alone, which ends its programs in order.
 */
export class Program {
  readonly command: Command;
  private readonly log: WriteStream;
  private readonly lock: number;
  private child: ChildProcess | undefined;
  private exited: Promise<void> = Promise.resolve();
  private restart: NodeJS.Timeout | undefined;
  private readonly newest: string[] = [];
  private isReady = false;
  private isEnding = false;

  /** @param lock an open file, which stays open until the last program has ended, whatever becomes of this process */
  constructor(command: Command, lock: number) {
    this.command = command;
    this.lock = lock;
    this.log = createWriteStream(command.logFile, { flags: 'a' });
  }

  get pid(): number | undefined {
    return this.child?.pid;
  }

  start(): void {
    const { name, program, args, env } = this.command;
    const child = spawn(program, args, {
      env,
      stdio: ['ignore', 'pipe', 'pipe', this.lock],
      detached: true,
    });
    this.child = child;
    for (const input of [child.stdout!, child.stderr!])
      createInterface({ input }).on('line', (line) => this.onLine(line));
    this.exited = new Promise((resolve) => {
      child.on('error', (error) => {
        say(name, `${program} can't be run: ${error.message}`);
        this.child = undefined;
        resolve();
      });
      // At "exit", its last lines may not be read yet.
      child.on('close', (code, signal) => {
        this.onExit(signal ?? `exit code ${code}`);
        resolve();
      });
    });
  }

  private onLine(line: string): void {
    this.log.write(`${line}\n`);
    this.newest.push(line);
    if (this.newest.length > NEWEST_LINES) this.newest.shift();
    if (this.command.isPrinted(line, this.isReady && !this.isEnding)) say(this.command.name, line);
  }

  private onExit(how: string): void {
    this.child = undefined;
    const { name } = this.command;
    if (this.isEnding || !this.isReady) return say(name, `ended (${how})`);
    say(name, `ended (${how}); it starts again in ${RESTART_DELAY / 1000} s`);
    this.restart = setTimeout(() => {
      this.start();
      say(name, `starts again, pid ${this.pid}`);
    }, RESTART_DELAY);
  }

  /** Waits until the program is ready. Throws if it ends before, or takes more than a minute. */
  async ready(): Promise<void> {
    const { name, readyUrl } = this.command;
    const end = performance.now() + READY_TIMEOUT;
    for (;;) {
      const problem = await problemAt(readyUrl);
      if (problem === undefined) break;
      if (this.isEnding) return;
      if (!this.child) throw this.failure(`${name} ended before it was ready`);
      if (performance.now() > end)
        throw this.failure(
          `${name} is not ready after ${READY_TIMEOUT / 1000} s: ${readyUrl} ${problem}`,
        );
      await sleep(READY_INTERVAL);
    }
    this.isReady = true;
  }

  private failure(what: string): Error {
    return new Error(
      `${what}. All that it wrote is in ${this.command.logFile}, last:\n${this.newest.join('\n')}`,
    );
  }

  /** Ends the program, and waits until it is gone. */
  async end(signal: NodeJS.Signals): Promise<void> {
    this.isEnding = true;
    clearTimeout(this.restart);
    this.child?.kill(signal);
    await this.exited;
  }

  /** Kills the program and does not wait. */
  kill(): void {
    this.isEnding = true;
    this.child?.kill('SIGKILL');
  }
}

/** Returns undefined if the URL answers with 200, else what it did instead: the answer of a nats-server names what it waits for. */
async function problemAt(url: string): Promise<string | undefined> {
  try {
    const answer = await fetch(url);
    const body = await answer.text();
    return answer.ok ? undefined : `answers with ${answer.status}: ${body.trim()}`;
  } catch (error) {
    const { cause, message } = error as Error;
    return `does not answer: ${cause instanceof Error ? cause.message : message}`;
  }
}
