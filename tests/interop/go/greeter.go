package main

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/getsentry/sentry-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"test/greeter/helloworld"
)

// The key of the servers that a call has yet to go through.
const routeKey = "x-route"

// All kinds of calls take requests and give replies: where they are not a
// stream, there is one.
type (
	// A requestSource returns io.EOF after the last one.
	requestSource func() (*helloworld.HelloRequest, error)
	replySink     func(*helloworld.HelloReply) error
)

func only(all ...*helloworld.HelloRequest) requestSource {
	return func() (*helloworld.HelloRequest, error) {
		if len(all) == 0 {
			return nil, io.EOF
		}
		first := all[0]
		all = all[1:]
		return first, nil
	}
}

func (r requestSource) after(first *helloworld.HelloRequest) requestSource {
	begin := only(first)
	return func() (*helloworld.HelloRequest, error) {
		if request, err := begin(); err == nil {
			return request, nil
		}
		return r()
	}
}

func each[T any](next func() (T, error), do func(T) error) error {
	for {
		one, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := do(one); err != nil {
			return err
		}
	}
}

// upstreams are the servers that this peer calls.
type upstreams struct {
	mu      sync.Mutex
	clients map[string]helloworld.GreeterClient
}

func newUpstreams() *upstreams {
	return &upstreams{clients: map[string]helloworld.GreeterClient{}}
}

func (u *upstreams) client(server string) (helloworld.GreeterClient, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if client, ok := u.clients[server]; ok {
		return client, nil
	}
	options := append(dialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	connection, err := grpc.NewClient(strings.TrimPrefix(server, "http://"), options...)
	if err != nil {
		return nil, err
	}
	client := helloworld.NewGreeterClient(connection)
	u.clients[server] = client
	return client, nil
}

// call calls the first server of a route, and passes on its replies as they come.
func (u *upstreams) call(ctx context.Context, method string, route []string, requests requestSource, replies replySink) error {
	// Whatever is left of the call goes with its caller.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client, err := u.client(route[0])
	if err != nil {
		return err
	}
	if others := route[1:]; len(others) > 0 {
		ctx = metadata.AppendToOutgoingContext(ctx, routeKey, strings.Join(others, ","))
	}

	switch method {
	case helloworld.Greeter_SayHello_FullMethodName:
		request, err := requests()
		if err != nil {
			return err
		}
		reply, err := client.SayHello(ctx, request)
		if err != nil {
			return err
		}
		return replies(reply)

	case helloworld.Greeter_SayHelloStream_FullMethodName:
		request, err := requests()
		if err != nil {
			return err
		}
		stream, err := client.SayHelloStream(ctx, request)
		if err != nil {
			return err
		}
		return each(stream.Recv, replies)

	case helloworld.Greeter_CollectHellos_FullMethodName:
		stream, err := client.CollectHellos(ctx)
		if err != nil {
			return err
		}
		if err := send(requests, stream); err != nil {
			return err
		}
		reply, err := stream.CloseAndRecv()
		if err != nil {
			return err
		}
		return replies(reply)

	case helloworld.Greeter_Chat_FullMethodName:
		stream, err := client.Chat(ctx)
		if err != nil {
			return err
		}
		go func() {
			if err := send(requests, stream); err != nil {
				cancel()
				return
			}
			_ = stream.CloseSend() // Never fails, by its documentation.
		}()
		return each(stream.Recv, replies)

	default:
		return status.Error(codes.Unimplemented, method)
	}
}

// send sends all requests of a stream.
func send(requests requestSource, stream grpc.ClientStream) error {
	err := each(requests, func(request *helloworld.HelloRequest) error { return stream.SendMsg(request) })
	// The server wants no more, and why that is comes with the status.
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

type greeter struct {
	helloworld.UnimplementedGreeterServer
	servers *upstreams
}

func (g *greeter) SayHello(ctx context.Context, request *helloworld.HelloRequest) (reply *helloworld.HelloReply, err error) {
	err = g.serve(ctx, helloworld.Greeter_SayHello_FullMethodName, only(request), func(one *helloworld.HelloReply) error {
		reply = one
		return nil
	})
	return reply, err
}

func (g *greeter) SayHelloStream(request *helloworld.HelloRequest, stream grpc.ServerStreamingServer[helloworld.HelloReply]) error {
	return g.serve(stream.Context(), helloworld.Greeter_SayHelloStream_FullMethodName, only(request), stream.Send)
}

func (g *greeter) CollectHellos(stream grpc.ClientStreamingServer[helloworld.HelloRequest, helloworld.HelloReply]) error {
	return g.serve(stream.Context(), helloworld.Greeter_CollectHellos_FullMethodName, stream.Recv, stream.SendAndClose)
}

func (g *greeter) Chat(stream grpc.BidiStreamingServer[helloworld.HelloRequest, helloworld.HelloReply]) error {
	return g.serve(stream.Context(), helloworld.Greeter_Chat_FullMethodName, stream.Recv, stream.Send)
}

func (g *greeter) serve(ctx context.Context, method string, requests requestSource, replies replySink) error {
	first, err := requests()
	if err != nil {
		return err
	}
	incoming, _ := metadata.FromIncomingContext(ctx)
	sayHop(method, first.GetName(), incoming)
	if route := incoming.Get(routeKey); len(route) > 0 {
		return g.servers.call(ctx, method, strings.Split(route[0], ","), requests.after(first), replies)
	}
	return greet(ctx, method, first, requests, replies)
}

func applicationMetadata(incoming metadata.MD) [][2]string {
	entries := [][2]string{}
	for _, key := range slices.Sorted(maps.Keys(incoming)) {
		if !strings.HasPrefix(key, "x-") || key == routeKey {
			continue
		}
		for _, value := range incoming[key] {
			entries = append(entries, [2]string{key, value})
		}
	}
	return entries
}

type hop struct {
	Method      string      `json:"method"`
	Name        string      `json:"name"`
	SentryTrace []string    `json:"sentry-trace"`
	Baggage     []string    `json:"baggage"`
	Metadata    [][2]string `json:"metadata"`
}

func sayHop(method, name string, incoming metadata.MD) {
	// JSON tells an empty list from none.
	values := func(key string) []string { return append([]string{}, incoming.Get(key)...) }
	say(map[string]hop{"hop": {
		Method:      method,
		Name:        name,
		SentryTrace: values(sentry.SentryTraceHeader),
		Baggage:     values(sentry.SentryBaggageHeader),
		Metadata:    applicationMetadata(incoming),
	}})
}

// greet answers the requests, of which the first is there, in a span.
func greet(ctx context.Context, method string, first *helloworld.HelloRequest, others requestSource, replies replySink) error {
	span := sentry.StartSpan(ctx, "function", sentry.WithDescription("find_name"))
	defer span.Finish()
	ctx = span.Context()
	hello := func(request *helloworld.HelloRequest) error {
		return replies(&helloworld.HelloReply{Message: "Hello " + request.GetName() + "!"})
	}

	switch method {
	case helloworld.Greeter_SayHelloStream_FullMethodName:
		// As a chat with the same request, again and again.
		others = only(first, first)
		fallthrough
	case helloworld.Greeter_Chat_FullMethodName:
		if err := hello(first); err != nil {
			return err
		}
		if err := findName(ctx, first.GetName()); err != nil {
			return err
		}
		return each(others, hello)

	case helloworld.Greeter_CollectHellos_FullMethodName:
		ignore := func(*helloworld.HelloRequest) error { return nil }
		if err := each(others, ignore); err != nil {
			return err
		}
		fallthrough
	default:
		if err := findName(ctx, first.GetName()); err != nil {
			return err
		}
		return hello(first)
	}
}

func findName(ctx context.Context, name string) error {
	kind, _, _ := strings.Cut(name, "-")
	switch kind {
	case "notfound":
		return status.Error(codes.NotFound, "nobody has this name")
	case "internal":
		const message = "lookup failed"
		sentry.GetHubFromContext(ctx).CaptureException(errors.New(message))
		return status.Error(codes.Internal, message)
	default:
		return nil
	}
}
