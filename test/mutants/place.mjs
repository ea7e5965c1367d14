import ts from 'typescript';

/**
 * A fault of a few tokens, and the tests that must notice it.
 *
 * @typedef {object} Mutant
 * @property {string} name
 * @property {string} file
 * @property {string} [within] the function, method, class or constant that holds `from`, where it is in the file more than once
 * @property {string} from the text that is replaced; its white space does not count, nor do commas before a closing bracket.
 *   A long expression stands without its `return` and semicolon, because prettier puts brackets around one that it breaks
 * @property {string} to
 * @property {readonly string[]} tests vitest's arguments
 */

/**
 * Puts a mutant in.
 *
 * @param {string} content the mutant's file
 * @param {Mutant} mutant
 * @returns {string} the file's new content
 * @throws {Error} unless there is exactly one place for it
 */
export function mutate(content, { name, file, within, from, to }) {
  const scopes = within ? declarations(content, file, within) : [[0, content.length]];
  const places = [...content.matchAll(pattern(from))].filter((match) =>
    scopes.some(([start, end]) => start <= match.index && match.index + match[0].length <= end),
  );
  if (places.length !== 1) {
    const where = within ? `${within} of ${file}` : file;
    throw new Error(`${name}: ${where} has this ${places.length} times, not once: ${from}`);
  }
  const [{ 0: text, index }] = places;
  return content.slice(0, index) + to + content.slice(index + text.length);
}

/**
 * Matches a text however prettier breaks its lines.
 *
 * @param {string} text
 */
function pattern(text) {
  const characters = text.replace(/\s+|,(?=\s*[)\]}])/g, '');
  const parts = Array.from(characters, (character) => {
    const literal = character.replace(/[\\^$.*+?()[\]{}|/]/, '\\$&');
    return /[)\]}]/.test(character) ? `,?\\s*${literal}` : literal;
  });
  const boundary = /^\w/.test(characters) ? '\\b' : '';
  return new RegExp(boundary + parts.join('\\s*'), 'g');
}

/**
 * Returns where each declaration of this name starts and ends.
 *
 * @param {string} content
 * @param {string} file
 * @param {string} name
 */
function declarations(content, file, name) {
  const source = ts.createSourceFile(file, content, ts.ScriptTarget.Latest, true);
  /** @type {[number, number][]} */
  const found = [];
  /** @param {ts.Node} node */
  const visit = (node) => {
    const own = ts.isConstructorDeclaration(node)
      ? 'constructor'
      : ts.getNameOfDeclaration(/** @type {ts.Declaration} */ (node))?.getText();
    if (own === name) found.push([node.getStart(), node.end]);
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}
