// The peer of grpc-go and sentry-go: a Greeter server and a client in one
// process, which obeys the orders that tests/interop/README.md describes.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/getsentry/sentry-go"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"test/greeter/helloworld"
)

const (
	flushTimeout = 20 * time.Second
	// For calls that others have yet to end.
	stopTimeout = 5 * time.Second
)

var methods = map[string]string{
	"unary":         helloworld.Greeter_SayHello_FullMethodName,
	"server_stream": helloworld.Greeter_SayHelloStream_FullMethodName,
	"client_stream": helloworld.Greeter_CollectHellos_FullMethodName,
	"bidi":          helloworld.Greeter_Chat_FullMethodName,
}

// An order is either a call or a flush.
type order struct {
	ID       *int        `json:"id"`
	Call     string      `json:"call"`
	Name     string      `json:"name"`
	Route    []string    `json:"route"`
	Metadata [][2]string `json:"metadata"`
	Flush    bool        `json:"flush"`
}

type answer struct {
	ID      int      `json:"id"`
	Code    string   `json:"code"`
	Message string   `json:"message"`
	Replies []string `json:"replies"`
}

type flushed struct {
	ID      int  `json:"id"`
	Flushed bool `json:"flushed"`
}

type listening struct {
	Listening string `json:"listening"`
}

func main() {
	if err := run(); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "peer:", err)
	os.Exit(1)
}

func run() error {
	// Whoever reads that the peer listens may send it a signal.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)

	if err := initSentry(); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	servers := newUpstreams()
	server := grpc.NewServer(serverOptions()...)
	helloworld.RegisterGreeterServer(server, &greeter{servers: servers})
	go func() {
		// The end may come before the beginning.
		if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			fail(err)
		}
	}()
	say(listening{"http://" + listener.Addr().String()})

	orders := make(chan order)
	go func() {
		defer close(orders)
		if err := readOrders(os.Stdin, orders); err != nil {
			fail(err)
		}
	}()
	obeyAll(orders, stop, servers)

	// Not every client hangs up when a server says that it goes away.
	late := time.AfterFunc(stopTimeout, server.Stop)
	defer late.Stop()
	server.GracefulStop()
	return flush()
}

func initSentry() error {
	rate, err := strconv.ParseFloat(os.Getenv("SENTRY_TRACES_SAMPLE_RATE"), 64)
	if err != nil {
		return fmt.Errorf("SENTRY_TRACES_SAMPLE_RATE: %w", err)
	}
	var org uint64
	if value := os.Getenv("PEER_ORG_ID"); value != "" {
		if org, err = strconv.ParseUint(value, 10, 64); err != nil {
			return fmt.Errorf("PEER_ORG_ID: %w", err)
		}
	}
	// The DSN, the environment and the release are read by the SDK, whose queue
	// holds 1000 transactions: more than a peer reports at once.
	return sentry.Init(sentry.ClientOptions{
		EnableTracing:           true,
		TracesSampleRate:        rate,
		OrgID:                   org,
		StrictTraceContinuation: os.Getenv("PEER_STRICT") == "1",
	})
}

func flush() error {
	if !sentry.Flush(flushTimeout) {
		return errors.New("not all that was reported could be sent")
	}
	return nil
}

// readOrders reads until the end of the input.
func readOrders(input io.Reader, orders chan<- order) error {
	decoder := json.NewDecoder(input)
	decoder.DisallowUnknownFields()
	for {
		var next order
		err := decoder.Decode(&next)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("not an order: %w", err)
		}
		if err := next.check(); err != nil {
			return err
		}
		orders <- next
	}
}

func (o *order) check() error {
	_, isCall := methods[o.Call]
	switch {
	case o.ID == nil:
		return errors.New("an order without id")
	case o.Flush && o.Call == "":
		return nil
	case o.Flush || !isCall || o.Name == "" || len(o.Route) == 0:
		return fmt.Errorf("order %d is neither a call nor a flush", *o.ID)
	default:
		return nil
	}
}

// obeyAll returns once all orders are obeyed: those that came until there are
// no more, or until it is told to stop.
func obeyAll(orders <-chan order, stop <-chan os.Signal, servers *upstreams) {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		select {
		case next, more := <-orders:
			if !more {
				return
			}
			running.Go(func() { obey(next, servers) })
		case <-stop:
			return
		}
	}
}

func obey(o order, servers *upstreams) {
	if !o.Flush {
		say(o.makeCall(servers))
		return
	}
	if err := flush(); err != nil {
		fail(err)
	}
	say(flushed{*o.ID, true})
}

// makeCall makes the call in a trace of its own.
func (o *order) makeCall(servers *upstreams) answer {
	ctx := sentry.SetHubOnContext(context.Background(), sentry.CurrentHub().Clone())
	transaction := sentry.StartTransaction(ctx, "call", sentry.WithOpName("test"))
	defer transaction.Finish()
	ctx = transaction.Context()
	for _, entry := range o.Metadata {
		ctx = metadata.AppendToOutgoingContext(ctx, entry[0], entry[1])
	}

	method := methods[o.Call]
	replies := []string{}
	err := servers.call(ctx, method, o.Route, o.requests(), func(reply *helloworld.HelloReply) error {
		replies = append(replies, reply.GetMessage())
		return nil
	})
	result := status.Convert(err)
	transaction.Status = spanStatus(result.Code())
	return answer{*o.ID, code.Code(result.Code()).String(), result.Message(), replies}
}

func (o *order) requests() requestSource {
	request := &helloworld.HelloRequest{Name: o.Name}
	switch o.Call {
	case "client_stream", "bidi":
		return only(request, request, request)
	default:
		return only(request)
	}
}

// spanStatus relies on SpanStatus to list gRPC's codes in their order, after
// the one that is undefined.
func spanStatus(code codes.Code) sentry.SpanStatus {
	return sentry.SpanStatusOK + sentry.SpanStatus(code)
}

var stdout sync.Mutex

// say prints one line of the protocol.
func say(line any) {
	stdout.Lock()
	defer stdout.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		fail(err)
	}
}
