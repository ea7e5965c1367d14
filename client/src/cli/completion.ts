import { Argument, type Command } from 'commander';

const EXAMPLES = `
Examples:
  source <(feed completion bash)                    in ~/.bashrc
  source <(feed completion zsh)                     in ~/.zshrc, after compinit
  feed completion fish > ~/.config/fish/completions/feed.fish`;

/** A command with its options, as a shell completes them. */
interface Completed {
  readonly name: string;
  readonly description: string;
  readonly options: readonly { readonly flag: string; readonly description: string }[];
  /** The words that its argument can be, if they are few. */
  readonly words: readonly string[];
}

const SCRIPTS: Readonly<Record<string, (commands: readonly Completed[]) => string>> = {
  bash: bashScript,
  zsh: zshScript,
  fish: fishScript,
};

/** Registers `feed completion`. Its scripts have all commands of the program. */
export function addCompletionCommand(program: Command): void {
  program
    .command('completion')
    .description('prints the script by which a shell completes the commands and options')
    .addArgument(new Argument('<shell>', 'the shell').choices(Object.keys(SCRIPTS)))
    .addHelpText('after', EXAMPLES)
    .action((shell: string) =>
      program.configureOutput().writeOut!(SCRIPTS[shell](commandsOf(program))),
    );
}

function commandsOf(program: Command): Completed[] {
  return program.commands.map((command) => ({
    name: command.name(),
    description: command.description(),
    options: [...command.options, ...program.options, ...HELP]
      .filter(({ hidden, long }) => !hidden && long !== '--version')
      .map(({ long, description }) => ({ flag: long ?? '', description })),
    words: command.registeredArguments.flatMap(({ argChoices }) => argChoices ?? []),
  }));
}

/** Commander adds --help to each command, but does not list it in `options`. */
const HELP = [{ long: '--help', description: 'how it is used', hidden: false }];

function bashScript(commands: readonly Completed[]): string {
  const cases = commands.map(({ name, options, words }) => {
    const flags = options.map(({ flag }) => flag).join(' ');
    return `    ${name}) flags='${flags}'; words='${words.join(' ')}' ;;`;
  });
  return `# Completion of feed for bash: source it.
_feed() {
  local current="\${COMP_WORDS[COMP_CWORD]}" flags= words= command= word
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$word" in
      ${commands.map(({ name }) => name).join('|')}) command="$word"; break ;;
    esac
  done
  case "$command" in
    '') words='${[...commands.map(({ name }) => name), 'help'].join(' ')}'; flags='--help --version' ;;
${cases.join('\n')}
  esac
  if [[ $current == -* ]]; then words="$flags"; fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
# Files where nothing else fits.
complete -o default -F _feed feed
`;
}

function zshScript(commands: readonly Completed[]): string {
  const lines = commands.map(({ name, description }) => `    ${quoted(`${name}:${description}`)}`);
  const cases = commands.map(({ name, options, words }) => {
    const flags = options.map(({ flag }) => quoted(flag)).join(' ');
    return `    ${name}) flags=(${flags}); words_of=(${words.join(' ')}) ;;`;
  });
  return `#compdef feed
# Completion of feed for zsh: source it after compinit, or save it as _feed in a directory of $fpath.
_feed() {
  local -a commands flags words_of
  commands=(
${lines.join('\n')}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  case "\${words[2]}" in
${cases.join('\n')}
  esac
  if [[ "\${words[CURRENT]}" == -* ]]; then
    compadd -- $flags
  elif (( $#words_of )); then
    compadd -- $words_of
  else
    _files
  fi
}
compdef _feed feed
`;
}

function fishScript(commands: readonly Completed[]): string {
  const lines = commands.flatMap(({ name, description, options, words }) => [
    `complete -c feed -n __fish_use_subcommand -f -a ${name} -d ${quoted(description)}`,
    ...options.map(
      ({ flag, description: text }) =>
        `complete -c feed -n '__fish_seen_subcommand_from ${name}' -l ${flag.slice(2)} -d ${quoted(text)}`,
    ),
    ...words.map(
      (word) => `complete -c feed -n '__fish_seen_subcommand_from ${name}' -f -a ${word}`,
    ),
  ]);
  return `# Completion of feed for fish: save it as ~/.config/fish/completions/feed.fish.\n${lines.join('\n')}\n`;
}

/** Quotes a text for bash, zsh and fish: in single quotes, with each single quote in it as `'\''`. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}
