//go:build !official

package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/getsentry/sentry-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Stand-ins for the interceptors of github.com/getsentry/sentry-go/grpc, which
// not every module proxy has. What they report of a call, and what they put on
// it, is the same, but for what a peer has no use for: panics, a name of its own
// for the SDK, and the request's metadata as a context of its events. With the tag
// `official`, official.go takes their place.

func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.UnaryInterceptor(serveUnary),
		grpc.StreamInterceptor(serveStream),
	}
}

func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithUnaryInterceptor(callUnary),
		grpc.WithStreamInterceptor(callStream),
	}
}

func serveUnary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	transaction := startTransaction(ctx, info.FullMethod)
	reply, err := handler(transaction.Context(), request)
	finish(transaction, err)
	return reply, err
}

func serveStream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	transaction := startTransaction(stream.Context(), info.FullMethod)
	err := handler(service, &tracedServerStream{stream, transaction.Context()})
	finish(transaction, err)
	return err
}

// tracedServerStream gives its handler the context of the call's transaction.
type tracedServerStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *tracedServerStream) Context() context.Context { return s.ctx }

func callUnary(ctx context.Context, method string, request, reply any, connection *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	span := startClientSpan(ctx, method)
	err := invoke(withTrace(span), method, request, reply, connection, options...)
	finish(span, err)
	return err
}

func callStream(ctx context.Context, description *grpc.StreamDesc, connection *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	span := startClientSpan(ctx, method)
	stream, err := open(withTrace(span), description, connection, method, options...)
	if err != nil {
		finish(span, err)
		return nil, err
	}
	var once sync.Once
	end := func(err error) {
		once.Do(func() { finish(span, err) })
	}
	// Callers may give up a stream without a last look at it.
	unwatch := context.AfterFunc(ctx, func() { end(ctx.Err()) })
	return &tracedClientStream{
		ClientStream: stream,
		oneReply:     !description.ServerStreams,
		end: func(err error) {
			unwatch()
			end(err)
		},
	}, nil
}

// tracedClientStream knows when a call is over, which may be found out by any
// of its methods.
type tracedClientStream struct {
	grpc.ClientStream
	oneReply bool
	// Only the first error counts.
	end func(error)
}

func (s *tracedClientStream) Header() (metadata.MD, error) {
	header, err := s.ClientStream.Header()
	if err != nil {
		s.end(err)
	}
	return header, err
}

func (s *tracedClientStream) SendMsg(message any) error {
	err := s.ClientStream.SendMsg(message)
	// After io.EOF the status is still to be received.
	if err != nil && !errors.Is(err, io.EOF) {
		s.end(err)
	}
	return err
}

func (s *tracedClientStream) RecvMsg(message any) error {
	err := s.ClientStream.RecvMsg(message)
	switch {
	case errors.Is(err, io.EOF):
		s.end(nil)
	case err != nil || s.oneReply:
		s.end(err)
	}
	return err
}

func startTransaction(ctx context.Context, fullMethod string) *sentry.Span {
	hub := sentry.CurrentHub().Clone()
	incoming, _ := metadata.FromIncomingContext(ctx)
	first := func(key string) string {
		if values := incoming.Get(key); len(values) > 0 {
			return values[0]
		}
		return ""
	}
	name := strings.TrimPrefix(fullMethod, "/")
	transaction := sentry.StartTransaction(
		sentry.SetHubOnContext(ctx, hub),
		name,
		sentry.ContinueTrace(hub, first(sentry.SentryTraceHeader), first(sentry.SentryBaggageHeader)),
		sentry.WithOpName("rpc.server"),
		sentry.WithDescription(name),
		sentry.WithTransactionSource(sentry.SourceRoute),
		sentry.WithSpanOrigin(sentry.SpanOriginGrpc),
	)
	describe(transaction, name)
	return transaction
}

func startClientSpan(ctx context.Context, fullMethod string) *sentry.Span {
	name := strings.TrimPrefix(fullMethod, "/")
	span := sentry.StartSpan(
		ctx,
		"rpc.client",
		sentry.WithTransactionName(name),
		sentry.WithDescription(name),
		sentry.WithSpanOrigin(sentry.SpanOriginGrpc),
	)
	describe(span, name)
	return span
}

func describe(span *sentry.Span, name string) {
	service, method, _ := strings.Cut(name, "/")
	span.SetData("rpc.system", "grpc")
	span.SetData("rpc.service", service)
	span.SetData("rpc.method", method)
}

// withTrace is the context of a client's call with Sentry's two headers.
func withTrace(span *sentry.Span) context.Context {
	outgoing, _ := metadata.FromOutgoingContext(span.Context())
	outgoing = outgoing.Copy()
	outgoing.Set(sentry.SentryTraceHeader, span.ToSentryTrace())
	others := strings.Join(outgoing.Get(sentry.SentryBaggageHeader), ",")
	// Without any of Sentry's, what cannot be parsed goes out as it is.
	if baggage, err := sentry.MergeBaggage(others, span.ToBaggage()); err == nil {
		outgoing.Set(sentry.SentryBaggageHeader, baggage)
	}
	return metadata.NewOutgoingContext(span.Context(), outgoing)
}

func finish(span *sentry.Span, err error) {
	code := codeOf(err)
	span.Status = spanStatus(code)
	span.SetData("rpc.grpc.status_code", int(code))
	span.Finish()
}

// codeOf knows a context's errors too, which handlers return as they are.
func codeOf(err error) codes.Code {
	if known, ok := status.FromError(err); ok {
		return known.Code()
	}
	return status.FromContextError(err).Code()
}
