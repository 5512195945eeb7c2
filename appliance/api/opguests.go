package api

import (
	"context"
	"net/netip"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

func (o *Operators) addGuests() {
	f := o.fleet
	add(o, "GET", "/tokens", "listTokens", "List the tokens of guests", func(_ context.Context, in *Cut) (*paged[fleet.Token], error) {
		return page(f.Tokens(), *in, func(t fleet.Token) string { return datedKey(t.Created, t.ID) })
	})
	add(o, "POST", "/tokens", "newToken", "Make a token by which programs on other machines fetch and seed images", func(ctx context.Context, in *struct{ Body TokenOrder }) (*answer[NewToken], error) {
		order := in.Body.TokenOrder
		order.Uses, order.Expires = max(in.Body.Uses, 0), time.Duration(in.Body.Expires)
		if order.Uses == 0 {
			order.Uses = 1
		}
		if order.Expires == 0 {
			order.Expires = 24 * time.Hour
		}
		t, ticket, err := f.NewToken(ctx, order)
		return body(NewToken{t, ticket}, err)
	}, made)
	add(o, "POST", "/tokens/{id}/revoke", "revokeToken", "End a token", func(ctx context.Context, in *struct {
		ID string `path:"id" maxLength:"64" doc:"At least six digits."`
	}) (*answer[*fleet.Token], error) {
		return body(f.RevokeToken(ctx, in.ID))
	})
	add(o, "POST", "/guests/join", "joinHere", "Let a program on the appliance's host take part in a swarm", func(ctx context.Context, in *struct{ Body job.Join }) (*answer[job.Joined], error) {
		if !isLocal(ctx) {
			return nil, &fleet.Refusal{Code: fleet.CodeForbidden, Detail: "without a token a program joins on the appliance's own host; make one (`seedbed token new`)"}
		}
		return body(f.Join(ctx, nil, true, netip.Addr{}, in.Body))
	})
	add(o, "GET", "/nodes", "listNodes", "List the seed nodes", func(_ context.Context, in *Cut) (*paged[fleet.NodeView], error) {
		return page(f.Nodes(), *in, func(n fleet.NodeView) string { return n.ID })
	})
	add(o, "POST", "/nodes/warm", "warmNodes", "Have all seed nodes fetch an image now", func(ctx context.Context, in *struct{ Body WarmOrder }) (*answer[Warmed], error) {
		n, err := f.Warm(ctx, in.Body.Image, in.Body.Share)
		return body(Warmed{n}, err)
	})
	add(o, "POST", "/nodes/drop", "dropFromNodes", "Have all seed nodes remove what they hold of an image", func(ctx context.Context, in *struct{ Body DropOrder }) (*answer[*fleet.Dropped], error) {
		return body(f.DropImage(ctx, in.Body.Image))
	})
}
