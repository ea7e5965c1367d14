import { useSignal } from '@preact/signals';
import { address } from '../api/http.ts';
import { session } from '../api/state.ts';
import { readTopic } from '../api/topics.ts';
import { usePolled } from '../page/polled.ts';
import { link } from '../page/route.ts';
import { Copy } from '../parts/copy.tsx';
import { curlWatch, feedWatch } from './commands.ts';
import { History } from './history/history.tsx';
import type { From } from './history/start-form.tsx';
import { LiveTail } from './live/live-tail.tsx';
import { isPattern } from './pattern.ts';
import { TopicFacts } from './topic-facts.tsx';
import { UploadDialog } from './upload/upload-dialog.tsx';

/** How often (milliseconds) it is read what the topic holds. */
const EVERY = 2500;

/** The page of a topic, or of a pattern of topics: what it holds, its live tail, its history, and an upload. */
export function TopicPage({ topic }: { readonly topic: string }) {
  const history = useSignal<From | undefined>(undefined);
  const isUploading = useSignal(false);
  const needsToken = session.value?.expiresAt !== undefined;
  return (
    <div class="topic-page">
      <div class="title-row">
        <h1>
          <a href={link({ page: 'topics' })}>Topics</a> <span class="muted">/</span> {topic}
        </h1>
        {!isPattern(topic) && <Facts topic={topic} />}
      </div>
      <div class="bar">
        <div class="segments" role="group" aria-label="Events">
          <button
            type="button"
            aria-pressed={!history.value}
            onClick={() => (history.value = undefined)}
          >
            Live
          </button>
          <button
            type="button"
            aria-pressed={!!history.value}
            onClick={() => (history.value ??= { kind: 'earliest', cursor: '' })}
          >
            History
          </button>
        </div>
        <span class="space" />
        <Copy text={feedWatch(topic)}>Copy feed watch</Copy>
        <Copy text={curlWatch(address(''), topic, needsToken)}>Copy curl</Copy>
        {!isPattern(topic) && (
          <button type="button" onClick={() => (isUploading.value = true)}>
            Upload …
          </button>
        )}
      </div>
      {history.value ? (
        <History topic={topic} from={history.value} />
      ) : (
        <LiveTail
          topic={topic}
          showHistory={(cursor) => (history.value = { kind: 'cursor', cursor })}
        />
      )}
      {isUploading.value && (
        <UploadDialog topic={topic} close={() => (isUploading.value = false)} />
      )}
    </div>
  );
}

/** What the topic holds; nothing where the caller may not know, which only administrators may. */
function Facts({ topic }: { readonly topic: string }) {
  const { answer } = usePolled((signal) => readTopic(topic, signal), EVERY, topic);
  return answer.value ? <TopicFacts topic={answer.value} /> : null;
}
