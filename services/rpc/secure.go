package rpc

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/daisy-llm/daisy/coordinator/plan"
	daisyv1 "github.com/daisy-llm/daisy/proto/daisy/v1"
)

// Insecure is for connections that need no protection: those that never leave the machine.
func Insecure() credentials.TransportCredentials { return insecure.NewCredentials() }

// Secure is mutual TLS. A server uses the one configuration; a client uses what dial gives for the name of the shard that it
// means to reach, and which must refuse everyone else.
func Secure(server *tls.Config, dial func(shard string) *tls.Config) credentials.TransportCredentials {
	return secure{credentials.NewTLS(server), dial}
}

type secure struct {
	credentials.TransportCredentials // the server's side
	dial                             func(shard string) *tls.Config
}

// ClientHandshake reaches for the shard that connect has put into the authority.
func (s secure) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	shard, err := url.PathUnescape(authority)
	if err != nil {
		return nil, nil, fmt.Errorf("dial %q: %w", authority, err)
	}
	return credentials.NewTLS(s.dial(shard)).ClientHandshake(ctx, authority, conn)
}

func (s secure) Clone() credentials.TransportCredentials {
	return secure{s.TransportCredentials.Clone(), s.dial}
}

// authorityOf is a shard's name as gRPC's authority, which is a header: names have other characters than those allow.
func authorityOf(shard string) string { return url.PathEscape(shard) }

// Caller says who is at the other end of a connection that is protected: a role, and a name for errors.
type Caller func(tls.ConnectionState) (role plan.Role, name string, err error)

// coordinatorOnly are the methods with which a shard is told what to do. Forward and Weights are called by shards as well.
func coordinatorOnly(method string) bool {
	switch method {
	case daisyv1.ShardService_Forward_FullMethodName, daisyv1.ShardService_Describe_FullMethodName,
		daisyv1.ShardService_Weights_FullMethodName:
		return false
	}
	return true // whatever is new, until it says otherwise
}

// gate lets calls in, by the role of who calls.
type gate struct{ caller Caller }

func (g gate) check(ctx context.Context, method string) error {
	if g.caller == nil {
		return nil
	}
	p, _ := peer.FromContext(ctx)
	if p == nil {
		return status.Error(codes.Unauthenticated, "the connection is not known")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return status.Error(codes.Unauthenticated, "the connection is not protected")
	}
	role, name, err := g.caller(info.State)
	if err != nil {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	if role != plan.Coordinator && coordinatorOnly(method) {
		return status.Errorf(codes.PermissionDenied, "%s %q may not call %s: only a coordinator may", role, cut(name, maxName), method)
	}
	return nil
}

func (g gate) unary(ctx context.Context, r any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if err := g.check(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handle(ctx, r)
}

func (g gate) stream(s any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if err := g.check(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	return handle(s, stream)
}
