import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { curlWatch, feedWatch } from '../src/topic/commands.ts';

const base = new URL('http://127.0.0.1:8080/v1/');

/** The words that a shell makes of a line. */
function words(line: string): string[] {
  const { stdout } = spawnSync('sh', ['-c', `printf '%s\\n' ${line}`], {
    encoding: 'utf8',
    env: { FEED_TOKEN: 'abc' },
  });
  return stdout.trimEnd().split('\n');
}

test.each(['orders', 'it’s', "it's", '$HOME', '`id`', 'a;b&c', 'ordérs/1'])(
  'a shell takes the topic %s as it is',
  (topic) => {
    expect(words(feedWatch(topic, '0000000001fc406w'))).toEqual([
      'feed',
      'watch',
      topic,
      '--from',
      '0000000001fc406w',
    ]);
    const [, , url] = words(curlWatch(base, topic, false));
    expect(new URL(url).searchParams.get('topic')).toBe(topic);
  },
);

test('curl shows a token where the server asks for one', () =>
  expect(words(curlWatch(base, 'orders', true, '01'))).toEqual([
    'curl',
    '-N',
    '-H',
    'authorization: Bearer abc',
    'http://127.0.0.1:8080/v1/events?topic=orders&after=01',
  ]));
