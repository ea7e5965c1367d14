import {
  accessSync,
  chmodSync,
  closeSync,
  constants,
  lstatSync,
  openSync,
  statfsSync,
  statSync,
} from 'node:fs';
import { dirname } from 'node:path';

const { O_RDWR, O_NOFOLLOW, R_OK, W_OK, X_OK } = constants;

/**
 * Turns an error of the file system into one that says what to change.
 *
 * @param wanted what was to be used; the error names the directory above it that is there and can't be used, if there is one
 */
export function accessError(wanted: string, cause: unknown): Error {
  const { code, message, path: failed = wanted } = cause as NodeJS.ErrnoException;
  const path = nearestVisible(failed) === failed ? failed : wanted;
  return new Error(`can't use ${path}: ${reasonOf(path, code) ?? message}`, { cause });
}

/** Returns true for an error of a system call, such as of a full disk. */
export function isSystemError(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).syscall !== undefined;
}

/** Returns the path, or the closest directory above it that this process can see. */
function nearestVisible(path: string): string {
  const above = dirname(path);
  try {
    lstatSync(path);
    return path;
  } catch {
    return above === path ? path : nearestVisible(above);
  }
}

function reasonOf(path: string, code: string | undefined): string | undefined {
  switch (code) {
    case 'EACCES':
    case 'EPERM':
      return notAllowed(path);
    case 'EROFS':
      return 'its file system is mounted read-only: mount it writable';
    case 'EISDIR':
      return `${path} is a directory, and must be a file`;
    case 'ELOOP':
      return symbolicLink(path);
    case 'ENOTDIR':
      return notDirectory(nearestVisible(path));
    case 'ENOENT':
      return notMade(nearestVisible(path));
    case 'ENOSPC':
      return noRoom(nearestVisible(path));
    case 'EDQUOT':
      return (
        `the disk quota of ${thisProcess()}, is used up: make room, have the quota raised, or set FEED_DATA_DIR to a ` +
        'path on another disk'
      );
    default:
      return undefined;
  }
}

function notAllowed(path: string): string {
  const at = nearestVisible(path);
  const who = thisProcess();
  const give =
    'it to that user (chown), or to one of its groups and make it writable for that (chgrp, chmod g+rwX)';
  return at === path
    ? `it is ${ownerOf(at)}, and ${who}, may not read and write it. Give ${give}`
    : `${at} is ${ownerOf(at)}, and ${who}, may not make or find it there. Make it, and give ${give}`;
}

function notDirectory(at: string): string {
  return (
    `${at} is ${ownerOf(at)}, and no directory: ${thisProcess()}, needs one there. Move it away, or set FEED_DATA_DIR to ` +
    'another path'
  );
}

/** @param at the closest directory to one that can't be made, though this process may write there */
function notMade(at: string): string {
  if (lstatSync(at).isSymbolicLink())
    return `${at} is a symbolic link that leads nowhere: make what it leads to, or set FEED_DATA_DIR to where that is`;
  return (
    `${at} is ${ownerOf(at)}, and its file system lets ${thisProcess()}, make nothing there: set FEED_DATA_DIR to a path on ` +
    'another one'
  );
}

/** A disk may also be full for want of inodes. Some file systems count none: they have 0 in all. */
function noRoom(at: string): string {
  const { bavail, bsize, files, ffree } = statfsSync(at);
  const inodes = files > 0 ? ` and ${ffree} inodes` : '';
  return (
    `its disk has no room, with ${bavail * bsize} bytes${inodes} free: make room, or set FEED_DATA_DIR to a path on ` +
    'another disk'
  );
}

function thisProcess(): string {
  return `this process, of uid ${process.geteuid?.()} and groups ${process.getgroups?.().join(', ')}`;
}

function ownerOf(path: string): string {
  const { uid, gid, mode } = lstatSync(path);
  return `of uid ${uid}, gid ${gid} and mode ${(mode & 0o7777).toString(8).padStart(4, '0')}`;
}

/** Links are refused, because free disk space would be measured, and the lock taken, beside the link. */
function symbolicLink(path: string): string {
  return `${path} is a symbolic link: put what it leads to in its place, or set FEED_DATA_DIR to where that is`;
}

/**
 * Opens a file for reading and writing, as LMDB will. If LMDB itself may not, it ends the process by a signal.
 *
 * @returns undefined if there is none
 * @throws an error that says what to do
 */
export function openFile(path: string): number | undefined {
  try {
    return openSync(path, O_RDWR | O_NOFOLLOW);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw accessError(path, error);
  }
}

/** Throws an error that says what to do, if a file exists and LMDB could not open it. */
export function refuseUnusableFile(path: string): void {
  const file = openFile(path);
  if (file !== undefined) closeSync(file);
}

/** Throws an error that says what to do, if a directory exists and LMDB could not use it. */
export function refuseUnusableDirectory(path: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (!found) return;
  if (found.isSymbolicLink()) throw new Error(symbolicLink(path));
  if (!found.isDirectory()) throw new Error(notDirectory(path));
  try {
    accessSync(path, R_OK | W_OK | X_OK);
  } catch (error) {
    throw accessError(path, error);
  }
}

/**
 * Lets a directory's group use what this process owns in it, if that group may write the directory: another user of
 * the group may run the next process, as where Kubernetes' fsGroup stays and runAsUser changes.
 */
export function shareWithGroup(directory: string, paths: readonly string[]): void {
  const GROUP_WRITE = 0o020;
  if ((statSync(directory).mode & GROUP_WRITE) === 0) return;
  for (const path of paths) {
    const found = statSync(path, { throwIfNoEntry: false });
    if (!found || found.uid !== process.geteuid?.()) continue;
    const mode = found.mode & 0o7777;
    const shared = mode | ((mode & 0o700) >>> 3);
    if (shared !== mode) chmodSync(path, shared);
  }
}
