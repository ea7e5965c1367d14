// It has to be loaded before uPlot.
// oxlint-disable-next-line import/no-unassigned-import
import './page/language.ts';
import { render } from 'preact';
import { App } from './page/app.tsx';

render(<App />, document.body);
