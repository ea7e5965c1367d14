import com.google.protobuf.Duration;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import feed.v1.Feed.Event;
import feed.v1.Feed.StartPosition;
import feed.v1.Feed.UploadResult;
import feed.v1.Feed.WatchRequest;
import feed.v1.FeedServiceGrpc;
import feed.v1.FeedServiceGrpc.FeedServiceBlockingV2Stub;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.BlockingClientCall;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Consumer;

/**
 * A client of Feed in Java, which loses no event and handles none twice when the service restarts or the network
 * breaks. docs/clients.md explains it.
 *
 * <pre>
 * FeedClient watch TOPIC [CURSOR]   prints "CURSOR ID BODY" for each event: all of them, or those after CURSOR
 * FeedClient upload TOPIC           stores each line "ID BODY" of standard input, 100 in an upload
 * </pre>
 *
 * Environment: FEED_ADDRESS, host:port of the service (127.0.0.1:50051); HEARTBEAT_SECONDS, how often the service shows
 * that a silent watch is alive (10).
 */
public final class FeedClient {
  /** A watch that brings neither an event nor a heartbeat for this many heartbeats is given up. */
  private static final int MISSED_HEARTBEATS = 3;

  /** The service's FEED_DEDUP_WINDOW: an event that is sent again within it is not stored again. */
  private static final long DEDUP_WINDOW_NANOS = TimeUnit.MINUTES.toNanos(2);

  private static final int EVENTS_PER_UPLOAD = 100;
  private static final long FIRST_PAUSE_MILLIS = 100;
  private static final long LONGEST_PAUSE_MILLIS = 5_000;

  private static final Set<String> TRANSIENT_REASONS =
      Set.of(
          "DRAINING",
          "MOVED",
          "STORAGE_FULL",
          "STORE_UNAVAILABLE",
          "INSERT_FAILED",
          "KEYS_UNAVAILABLE",
          "LIMIT_EXCEEDED");
  /** Of errors without a reason. UNKNOWN is what gRPC says of some connections that broke, and of a proxy's HTTP 500. */
  private static final Set<Status.Code> TRANSIENT_CODES =
      Set.of(
          Status.Code.UNAVAILABLE,
          Status.Code.UNKNOWN,
          Status.Code.RESOURCE_EXHAUSTED,
          Status.Code.INTERNAL,
          Status.Code.CANCELLED,
          Status.Code.DEADLINE_EXCEEDED);

  private final ManagedChannel channel;
  private final FeedServiceBlockingV2Stub feed;

  private FeedClient(String address) {
    channel =
        Grpc.newChannelBuilder(address, InsecureChannelCredentials.create())
            // A watch sends nothing, so only pings notice that the network is gone.
            .keepAliveTime(30, TimeUnit.SECONDS)
            .keepAliveTimeout(10, TimeUnit.SECONDS)
            // The loops below try again: only they know the cursor and the deduplication window.
            .disableRetry()
            .disableServiceConfigLookUp()
            .build();
    feed = FeedServiceGrpc.newBlockingV2Stub(channel);
  }

  /**
   * Hands each event after the cursor to the handler, in order, once. Ends only with an error that trying again does
   * not help.
   */
  private void watch(String topic, String cursor, int heartbeat, Consumer<Event> handler)
      throws StatusException, InterruptedException {
    for (int failures = 0; ; failures++) {
      BlockingClientCall<?, Event> call = feed.watch(requestAfter(cursor, topic, heartbeat));
      try {
        // There is no deadline: a watch lasts for as long as something comes. The time that handling takes is between
        // two reads, so it does not count as the service's silence.
        Event event;
        while ((event = call.read(heartbeat * MISSED_HEARTBEATS, TimeUnit.SECONDS)) != null) {
          failures = 0;
          if (!event.getId().isEmpty()) { // a heartbeat has no id
            handler.accept(event);
          }
          cursor = event.getCursor(); // only now: a crash before this line repeats the event and loses nothing
        }
        System.err.println("the watch broke and resumes: it ended");
      } catch (TimeoutException silence) {
        System.err.println("the watch broke and resumes: it was silent");
      } catch (StatusException error) {
        if (!isTransient(error)) {
          throw error;
        }
        System.err.println("the watch broke and resumes: " + explain(error));
      } finally {
        call.cancel("given up", null);
      }
      pause(millisAfter(failures));
    }
  }

  private static WatchRequest requestAfter(String cursor, String topic, int heartbeat) {
    WatchRequest.Builder request =
        WatchRequest.newBuilder().setTopic(topic).setHeartbeat(Duration.newBuilder().setSeconds(heartbeat));
    return cursor.isEmpty()
        ? request.setPosition(StartPosition.START_POSITION_EARLIEST).build()
        : request.setAfterCursor(cursor).build();
  }

  /** Stores the events, each once, however often the service goes away. */
  private UploadResult upload(List<Event> events) throws StatusException, InterruptedException {
    long end = System.nanoTime() + DEDUP_WINDOW_NANOS;
    for (int failures = 0; ; failures++) {
      try {
        return send(events, end - System.nanoTime());
      } catch (StatusException error) {
        long millis = millisAfter(failures);
        if (!isTransient(error) || System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(millis) - end > 0) {
          throw error;
        }
        System.err.println("the upload broke and is sent again, with the same ids: " + explain(error));
        pause(millis);
      }
    }
  }

  private UploadResult send(List<Event> events, long nanos) throws StatusException, InterruptedException {
    BlockingClientCall<Event, UploadResult> call =
        feed.withDeadlineAfter(nanos, TimeUnit.NANOSECONDS).uploadEvents();
    for (Event event : events) {
      call.write(event);
    }
    call.halfClose();
    return call.read();
  }

  /**
   * Waits. Meanwhile the channel connects again; without the first line it would wait for up to two minutes before it
   * does, whatever the loops above do.
   */
  private void pause(long millis) throws InterruptedException {
    channel.resetConnectBackoff();
    Thread.sleep(millis);
  }

  /**
   * Doubles with each failure in a row. It is random, so that the clients of a service that restarts do not all come
   * back at the same moment.
   */
  private static long millisAfter(int failures) {
    long millis = Math.min(FIRST_PAUSE_MILLIS << Math.min(failures, 10), LONGEST_PAUSE_MILLIS);
    return ThreadLocalRandom.current().nextLong(millis / 2, millis);
  }

  /** True when the same request may succeed later. docs/guide.md has the table. */
  private static boolean isTransient(StatusException error) {
    String reason = infoOf(error).getReason();
    return reason.isEmpty()
        ? TRANSIENT_CODES.contains(error.getStatus().getCode())
        : TRANSIENT_REASONS.contains(reason);
  }

  /** The ErrorInfo of the service; an empty one where the error comes from elsewhere, such as a proxy. */
  private static ErrorInfo infoOf(StatusException error) {
    for (var detail : StatusProto.fromThrowable(error).getDetailsList()) {
      try {
        if (detail.is(ErrorInfo.class) && detail.unpack(ErrorInfo.class).getDomain().equals("feed.v1")) {
          return detail.unpack(ErrorInfo.class);
        }
      } catch (InvalidProtocolBufferException unreadable) {
        // Not of the service, whose details can be read.
      }
    }
    return ErrorInfo.getDefaultInstance();
  }

  /** Says what went wrong, and which cursors are left to go on from. */
  private static String explain(StatusException error) {
    ErrorInfo info = infoOf(error);
    Status status = error.getStatus();
    String text = status.getCode() + " " + info.getReason() + ": " + status.getDescription();
    for (String name : List.of("earliest", "head")) {
      if (info.containsMetadata(name)) {
        text += "; " + name + " cursor: " + info.getMetadataOrThrow(name);
      }
    }
    return text;
  }

  private void uploadLines(String topic) throws IOException, StatusException, InterruptedException {
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (; ; ) {
      List<Event> events = new ArrayList<>();
      String line;
      while (events.size() < EVENTS_PER_UPLOAD && (line = lines.readLine()) != null) {
        String[] parts = line.split(" ", 2);
        String body = parts.length > 1 ? parts[1] : "";
        events.add(Event.newBuilder().setId(parts[0]).setTopic(topic).setBody(body).build());
      }
      if (events.isEmpty()) {
        return;
      }
      UploadResult result = upload(events);
      System.out.println(result.getReceived() + " acknowledged, " + result.getDuplicates() + " of them were there already");
    }
  }

  private static String environment(String name, String otherwise) {
    String value = System.getenv(name);
    return value == null || value.isEmpty() ? otherwise : value;
  }

  public static void main(String[] arguments) throws IOException, InterruptedException {
    String command = arguments.length < 2 ? "" : arguments[0];
    if (!command.equals("watch") && !command.equals("upload")) {
      System.err.println("FeedClient watch TOPIC [CURSOR] | FeedClient upload TOPIC");
      System.exit(1);
    }
    FeedClient client = new FeedClient(environment("FEED_ADDRESS", "127.0.0.1:50051"));
    PrintStream output = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    try {
      if (command.equals("watch")) {
        String cursor = arguments.length > 2 ? arguments[2] : "";
        int heartbeat = Integer.parseInt(environment("HEARTBEAT_SECONDS", "10"));
        client.watch(
            arguments[1],
            cursor,
            heartbeat,
            event -> output.println(event.getCursor() + " " + event.getId() + " " + event.getBody()));
      } else {
        client.uploadLines(arguments[1]);
      }
    } catch (StatusException error) {
      System.err.println(command + " ended: " + explain(error));
      System.exit(1);
    }
    client.channel.shutdown();
  }
}
