package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/daisy-llm/daisy/pass"
	daisyv1 "github.com/daisy-llm/daisy/proto/daisy/v1"
	"github.com/daisy-llm/daisy/shard"
)

// helloTimeout is how long a coordinator may take to introduce itself.
const helloTimeout = 5 * time.Second

// maxCommands bounds a coordinator's commands in work at once.
const maxCommands = 4096

// Control serves a coordinator's control stream. When it ends, the coordinator's sequences are freed.
func (s *Server) Control(stream daisyv1.ShardService_ControlServer) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)

	requests := make(chan *daisyv1.ControlRequest)
	received := make(chan error, 1)
	go func() { received <- receiveRequests(ctx, stream, requests) }()

	name, err := s.greet(ctx, stream, requests, received)
	if err != nil {
		return toStatus(err)
	}
	c, err := s.cfg.Outlet.join(ctx, name, cancel)
	if err != nil {
		return toStatus(err)
	}
	defer func() {
		s.cfg.Shard.Drop(context.WithoutCancel(ctx), name) // fails only if the shard has stopped, and all is free
		s.cfg.Outlet.leave(name, c)
	}()
	grant := s.cfg.Shard.Grant()
	c.post(&daisyv1.ControlResponse{Event: &daisyv1.ControlResponse_Credit{
		Credit: &daisyv1.Credit{Passes: uint32(grant.Passes), Bytes: grant.Bytes},
	}})

	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxCommands)
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case r := <-c.events:
				if err := stream.Send(r); err != nil {
					return err
				}
			}
		}
	})
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case err := <-received:
				return err
			case r := <-requests:
				begun := make(chan struct{})
				begin := sync.OnceFunc(func() { close(begun) })
				if !g.TryGo(func() error { defer begin(); s.command(ctx, c, name, r, begin); return nil }) {
					return fmt.Errorf("%d commands at once: %w", maxCommands, shard.ErrBusy)
				}
				if r.GetLoad() != nil {
					<-begun // an Unload that follows must find it
				}
			}
		}
	})
	err = g.Wait()
	if errors.Is(err, io.EOF) {
		return nil
	}
	return toStatus(err)
}

func receiveRequests(ctx context.Context, stream daisyv1.ShardService_ControlServer, requests chan<- *daisyv1.ControlRequest) error {
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		select {
		case requests <- r:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// greet exchanges Hellos and checks that both sides speak the same versions.
func (s *Server) greet(ctx context.Context, stream daisyv1.ShardService_ControlServer, requests <-chan *daisyv1.ControlRequest, received <-chan error) (string, error) {
	var r *daisyv1.ControlRequest
	select {
	case r = <-requests:
	case err := <-received:
		return "", err
	case <-time.After(helloTimeout):
		return "", errors.New("no hello came")
	case <-ctx.Done():
		return "", ctx.Err()
	}
	hello := r.GetHello()
	if hello == nil || hello.GetName() == "" || len(hello.GetName()) > maxName {
		return "", errors.New("a control stream begins with a hello that has a name")
	}
	d := &s.cfg.Description
	mine := &daisyv1.Hello{Name: d.Name, Protocol: d.Protocol, Numerics: d.Numerics, Version: d.Version}
	if hello.GetProtocol() != mine.Protocol || hello.GetNumerics() != mine.Numerics {
		err := fmt.Errorf("%w: coordinator %s (version %s) speaks protocol %d with numerics %d, shard %s (version %s) protocol %d with numerics %d: run the same release of daisy on both",
			errVersion, hello.GetName(), cut(hello.GetVersion(), maxName), hello.GetProtocol(), hello.GetNumerics(), mine.Name, mine.Version, mine.Protocol, mine.Numerics)
		s.misfit(err)
		stream.Send(&daisyv1.ControlResponse{Tag: r.GetTag(), Event: &daisyv1.ControlResponse_Failure{Failure: failureOf(err)}})
		return "", err
	}
	return hello.GetName(), stream.Send(&daisyv1.ControlResponse{Tag: r.GetTag(), Event: &daisyv1.ControlResponse_Hello{Hello: mine}})
}

// command does what one request asks and posts the reply. It calls begun once a Load can be ended by an Unload.
func (s *Server) command(ctx context.Context, c *coordination, coordinator string, r *daisyv1.ControlRequest, begun func()) {
	reply := &daisyv1.ControlResponse{Tag: r.GetTag()}
	err := s.perform(ctx, c, coordinator, r, reply, begun)
	switch {
	case err != nil:
		reply.Event = &daisyv1.ControlResponse_Failure{Failure: failureOf(err)}
	case reply.Event == nil:
		reply.Event = &daisyv1.ControlResponse_Done{Done: &daisyv1.Done{}}
	}
	c.post(reply)
}

func (s *Server) perform(ctx context.Context, c *coordination, coordinator string, r *daisyv1.ControlRequest, reply *daisyv1.ControlResponse, begun func()) error {
	switch cmd := r.GetCommand().(type) {
	case *daisyv1.ControlRequest_Load:
		return s.load(ctx, c, r.GetTag(), cmd.Load, begun)
	case *daisyv1.ControlRequest_Unload:
		plan, err := planFromProto(cmd.Unload.GetPlan())
		if err != nil {
			return err
		}
		if plan.Leader != coordinator && s.cfg.Outlet.coordination(plan.Leader) != nil {
			return fmt.Errorf("plan %v is in use: coordinator %s is connected. Stop it, or start shards of its own for this one", plan, plan.Leader)
		}
		defer s.loaded(ctx)
		return s.cfg.Shard.Unload(ctx, plan)
	case *daisyv1.ControlRequest_Begin:
		begin, err := beginFromProto(cmd.Begin)
		if err != nil {
			return err
		}
		begun, err := s.cfg.Shard.Begin(ctx, coordinator, begin)
		if err != nil {
			return err
		}
		reply.Event = &daisyv1.ControlResponse_Begun{Begun: begunToProto(begun)}
		return nil
	case *daisyv1.ControlRequest_Release:
		return s.cfg.Shard.Release(ctx, coordinator, pass.SequenceID(cmd.Release.GetSequence()))
	case *daisyv1.ControlRequest_Probe:
		steps, queued := s.cfg.Shard.Progress()
		reply.Event = &daisyv1.ControlResponse_Probe{Probe: &daisyv1.Progress{Steps: steps, Queued: uint32(queued)}}
		return nil
	}
	return fmt.Errorf("command %T is not known here", r.GetCommand())
}

// progressEvery bounds how often a load reports.
const progressEvery = 50 * time.Millisecond

func (s *Server) load(ctx context.Context, c *coordination, tag uint64, m *daisyv1.Load, begun func()) error {
	load, err := loadFromProto(m)
	if err != nil {
		return err
	}
	var reported time.Time
	err = s.cfg.Shard.Load(ctx, load, func(p pass.LoadProgress) {
		begun()
		if p.Done < p.Total && time.Since(reported) < progressEvery {
			return
		}
		reported = time.Now()
		c.post(&daisyv1.ControlResponse{Tag: tag, Event: &daisyv1.ControlResponse_Progress{
			Progress: &daisyv1.LoadProgress{Done: p.Done, Total: p.Total},
		}})
	})
	if errors.Is(err, shard.ErrModel) {
		s.misfit(err)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.proven = true
	s.mu.Unlock()
	s.loaded(ctx)
	return nil
}

// loaded tells whoever wants to know that the blocks held have changed.
func (s *Server) loaded(ctx context.Context) {
	if s.cfg.Loaded == nil {
		return
	}
	if blocks, _, err := s.cfg.Shard.Blocks(ctx); err == nil {
		s.cfg.Loaded(blocks)
	}
}
