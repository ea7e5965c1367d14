import './page/language.ts';
import { render } from 'preact';
import { App } from './page/app.tsx';

render(<App />, document.body);
