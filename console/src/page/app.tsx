import { useEffect } from 'preact/hooks';
import { readSession } from '../api/session.ts';
import { Overview } from '../overview/overview.tsx';
import { Streams } from '../streams/streams.tsx';
import { TopicPage } from '../topic/topic-page.tsx';
import { Topics } from '../topics/topics.tsx';
import { Header } from './header.tsx';
import { useSearchKey } from './keyboard.ts';
import { LostServer } from './lost-server.tsx';
import { usePolled } from './polled.ts';
import { route } from './route.ts';
import { SignIn } from './sign-in.tsx';

/** How often (milliseconds) the page asks who it is for, which also finds out that a token has expired. */
const SESSION_EVERY = 60_000;

export function App() {
  usePolled(readSession, SESSION_EVERY);
  useSearchKey();
  useEffect(() => {
    document.title = title();
  }, [route.value]);
  return (
    <>
      <Header />
      <LostServer />
      <main>{page()}</main>
      <SignIn />
    </>
  );
}

function page() {
  const to = route.value;
  if (to.page === 'topics') return <Topics />;
  if (to.page === 'topic') return <TopicPage key={to.topic} topic={to.topic} />;
  return to.page === 'streams' ? <Streams /> : <Overview />;
}

function title(): string {
  const to = route.value;
  if (to.page === 'topic') return `${to.topic} · Feed`;
  return to.page === 'overview' ? 'Feed' : `${to.page[0].toUpperCase()}${to.page.slice(1)} · Feed`;
}
