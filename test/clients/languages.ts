/** A language in which examples/clients has a program, with the commands that make the program. */
export interface Language {
  /** The name of its directory in examples/clients. The commands run there, in a copy. */
  readonly name: string;
  /** The files of that directory, without what building there leaves in it. The first one is the program. */
  readonly sources: readonly [string, ...string[]];
  /** Commands that succeed where the language's tools are installed. The program is built again when their output changes. */
  readonly tools: readonly Command[];
  /** Fetches packages. Where it fails, the program's tests are skipped: a registry may be slow or out of reach. */
  readonly download: Command;
  /** Generates the code from proto/ and builds the program. Where one fails, the program's tests fail. */
  readonly build: readonly Command[];
  /** Runs the program; its arguments follow. */
  readonly run: Command;
  /** Environment variables of all these commands but `download`. */
  readonly settings: Readonly<Record<string, string>>;
}

/** A program and its arguments, with one space before each. */
export type Command = string;

export const LANGUAGES: readonly Language[] = [
  {
    name: 'go',
    sources: ['main.go', 'go.mod', 'go.sum', 'buf.gen.yaml'],
    tools: ['go version'],
    download: 'go mod download',
    build: ['buf generate ../../../proto --path ../../../proto/feed', 'go build -o feed-client .'],
    run: './feed-client',
    // Without the network: a package that go.mod does not name is a mistake.
    settings: { GOPROXY: 'off' },
  },
  {
    name: 'python',
    sources: ['feed_client.py', 'requirements.txt'],
    tools: ['python3 --version', 'python3 -m pip --version'],
    // Into a directory rather than a virtual environment, which can't be moved. Without a wheel for this machine, pip would
    // compile gRPC, which takes half an hour.
    download:
      'python3 -m pip install --quiet --only-binary=:all: --target lib --requirement requirements.txt',
    build: [
      'python3 -m grpc_tools.protoc -I ../../../proto feed/v1/feed.proto --python_out=. --grpc_python_out=.',
    ],
    run: 'python3 feed_client.py',
    settings: { PYTHONPATH: 'lib' },
  },
  {
    name: 'java',
    sources: ['src/main/java/FeedClient.java', 'pom.xml'],
    tools: ['javac -version', 'mvn --version'],
    // Does all that the build does, except that the compiler, which has to be fetched too, compiles nothing.
    download: 'mvn --batch-mode --quiet compile dependency:copy-dependencies -Dmaven.main.skip',
    build: ['mvn --batch-mode --quiet --offline compile'],
    // The first two options make a short run cheap: they leave out the slower compiler and the collector's threads.
    run: 'java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp target/classes:target/lib/* FeedClient',
    settings: {},
  },
];
