// A client of Feed in Go, which loses no event and handles none twice when the service restarts or the network breaks.
// docs/clients.md explains it.
//
//	feed-client watch TOPIC [CURSOR]   prints "CURSOR ID BODY" for each event: all of them, or those after CURSOR
//	feed-client upload TOPIC           stores each line "ID BODY" of standard input, 100 in an upload
//
// Environment: FEED_ADDRESS, host:port of the service (127.0.0.1:50051); HEARTBEAT_SECONDS, how often the service shows
// that a silent watch is alive (10).
package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	feedv1 "feed-client/feed/v1"
)

const (
	// A watch that brings neither an event nor a heartbeat for this many heartbeats is given up.
	missedHeartbeats = 3
	// The service's FEED_DEDUP_WINDOW: an event that is sent again within it is not stored again.
	dedupWindow     = 2 * time.Minute
	eventsPerUpload = 100
	firstPause      = 100 * time.Millisecond
	longestPause    = 5 * time.Second
)

var errSilent = errors.New("it was silent")

func connect(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// A watch sends nothing, so only pings notice that the network is gone.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:    30 * time.Second,
			Timeout: 10 * time.Second,
		}),
		// By default, gRPC waits for up to two minutes before it connects again, whatever the loop below does.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstPause, Multiplier: 2, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		// The loops below try again: only they know the cursor and the deduplication window.
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
	)
}

// watch hands each event after the cursor to handle, in order, once. It returns only with an error that trying again
// does not help.
func watch(
	feed feedv1.FeedServiceClient, topic, cursor string, heartbeat time.Duration, handle func(*feedv1.Event),
) error {
	for failures := 0; ; failures++ {
		request := requestAfter(cursor, topic, heartbeat)
		err := follow(feed, request, heartbeat*missedHeartbeats, func(event *feedv1.Event) {
			failures = 0
			if event.Id != "" { // a heartbeat has no id
				handle(event)
			}
			cursor = event.Cursor // only now: a crash before this line repeats the event and loses nothing
		})
		if !isTransient(err) {
			return err
		}
		log.Printf("the watch broke and resumes: %s", explain(err))
		time.Sleep(pauseAfter(failures))
	}
}

func requestAfter(cursor, topic string, heartbeat time.Duration) *feedv1.WatchRequest {
	request := &feedv1.WatchRequest{Topic: topic, Heartbeat: durationpb.New(heartbeat)}
	if cursor == "" {
		request.Start = &feedv1.WatchRequest_Position{Position: feedv1.StartPosition_START_POSITION_EARLIEST}
	} else {
		request.Start = &feedv1.WatchRequest_AfterCursor{AfterCursor: cursor}
	}
	return request
}

// follow hands on what one watch brings, heartbeats too, and returns why the watch ended. There is no deadline: a watch
// lasts for as long as something comes.
func follow(
	feed feedv1.FeedServiceClient, request *feedv1.WatchRequest, patience time.Duration, receive func(*feedv1.Event),
) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	silence := time.AfterFunc(patience, func() { cancel(errSilent) })
	defer silence.Stop()
	stream, err := feed.Watch(ctx, request)
	for err == nil {
		var event *feedv1.Event
		if event, err = stream.Recv(); err == nil {
			silence.Stop() // the time that handling takes is not the service's silence
			receive(event)
			silence.Reset(patience)
		}
	}
	if context.Cause(ctx) == errSilent {
		return errSilent
	}
	return err
}

// upload stores the events, each once, however often the service goes away.
func upload(feed feedv1.FeedServiceClient, events []*feedv1.Event) (*feedv1.UploadResult, error) {
	end := time.Now().Add(dedupWindow)
	for failures := 0; ; failures++ {
		result, err := send(feed, events, end)
		if err == nil {
			return result, nil
		}
		pause := pauseAfter(failures)
		if !isTransient(err) || time.Now().Add(pause).After(end) {
			return nil, err
		}
		log.Printf("the upload broke and is sent again, with the same ids: %s", explain(err))
		time.Sleep(pause)
	}
}

func send(feed feedv1.FeedServiceClient, events []*feedv1.Event, end time.Time) (*feedv1.UploadResult, error) {
	ctx, cancel := context.WithDeadline(context.Background(), end)
	defer cancel()
	stream, err := feed.UploadEvents(ctx)
	if err != nil {
		return nil, err
	}
	for _, event := range events {
		if stream.Send(event) != nil {
			break // the upload has ended; CloseAndRecv says why
		}
	}
	return stream.CloseAndRecv()
}

// isTransient returns true when the same request may succeed later. docs/guide.md has the table.
func isTransient(err error) bool {
	if errors.Is(err, errSilent) || errors.Is(err, io.EOF) {
		return true
	}
	switch reasonOf(err) {
	case "DRAINING", "MOVED", "STORAGE_FULL", "STORE_UNAVAILABLE", "INSERT_FAILED", "KEYS_UNAVAILABLE",
		"LIMIT_EXCEEDED":
		return true
	case "":
		switch status.Code(err) {
		// gRPC says Unknown of some streams that broke, and of a proxy's HTTP status 500.
		case codes.Unavailable, codes.Unknown, codes.ResourceExhausted, codes.Internal, codes.Canceled, codes.DeadlineExceeded:
			return true
		}
	}
	return false
}

func infoOf(err error) *errdetails.ErrorInfo {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Domain == "feed.v1" {
			return info
		}
	}
	return nil
}

func reasonOf(err error) string { return infoOf(err).GetReason() }

// pauseAfter doubles with each failure in a row. It is random, so that the clients of a service that restarts do not
// all come back at the same moment.
func pauseAfter(failures int) time.Duration {
	pause := min(firstPause<<min(failures, 10), longestPause)
	return pause/2 + rand.N(pause/2)
}

// explain says what ended the program, and which cursors are left to go on from.
func explain(err error) string {
	if _, ok := status.FromError(err); !ok {
		return err.Error()
	}
	info := infoOf(err)
	text := fmt.Sprintf("%s %s: %s", status.Code(err), info.GetReason(), status.Convert(err).Message())
	for _, name := range []string{"earliest", "head"} {
		if cursor := info.GetMetadata()[name]; cursor != "" {
			text += fmt.Sprintf("; %s cursor: %s", name, cursor)
		}
	}
	return text
}

func show(event *feedv1.Event) { fmt.Println(event.Cursor, event.Id, event.Body) }

func uploadLines(feed feedv1.FeedServiceClient, topic string) error {
	lines := bufio.NewReader(os.Stdin)
	for {
		var events []*feedv1.Event
		for len(events) < eventsPerUpload {
			line, err := lines.ReadString('\n')
			if line == "" && err != nil {
				break
			}
			id, body, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			events = append(events, &feedv1.Event{Id: id, Topic: topic, Body: body})
		}
		if len(events) == 0 {
			return nil
		}
		result, err := upload(feed, events)
		if err != nil {
			return err
		}
		fmt.Printf("%d acknowledged, %d of them were there already\n", result.Received, result.Duplicates)
	}
}

func main() {
	log.SetFlags(0)
	arguments := append(os.Args[1:], "", "", "")
	command, topic, cursor := arguments[0], arguments[1], arguments[2]
	seconds, err := strconv.Atoi(cmp.Or(os.Getenv("HEARTBEAT_SECONDS"), "10"))
	if err != nil || topic == "" || command != "watch" && command != "upload" {
		log.Fatal("feed-client watch TOPIC [CURSOR] | feed-client upload TOPIC")
	}
	connection, err := connect(cmp.Or(os.Getenv("FEED_ADDRESS"), "127.0.0.1:50051"))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	feed := feedv1.NewFeedServiceClient(connection)
	if command == "watch" {
		err = watch(feed, topic, cursor, time.Duration(seconds)*time.Second, show)
	} else {
		err = uploadLines(feed, topic)
	}
	if err != nil {
		log.Fatalf("%s ended: %s", command, explain(err))
	}
}
