package fleet

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// StayView is a person's stay in the console as people see it. ID is no secret: the cookie cannot be told from it.
type StayView struct {
	ID      string    `json:"id"`
	User    string    `json:"user"` // name
	From    string    `json:"from"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	// Own says that it is that of who asks, by the cookie that was given to Stays.
	Own bool `json:"own,omitempty"`
}

// Stays returns the stays of who asks, or all for an administrator, the latest first; cookie is that of who asks, "" if none.
func (f *Fleet) Stays(ctx context.Context, cookie string) []StayView {
	a, known := ActorOf(ctx)
	own, now := "", f.now()
	if cookie != "" {
		own = secretHash(cookie)
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	list := []StayView{}
	for _, l := range ofKind[*Login](&f.state, KindLogin) {
		u, _ := f.state.others[Key{KindUser, l.User}].(*User)
		if u == nil || now.After(l.Expires) || known && !a.Role.Includes(RoleAdmin) && l.User != GroupID(a.Name) {
			continue
		}
		list = append(list, StayView{l.ID, u.Name, l.From, l.Created, l.Expires, l.ID == own})
	}
	slices.SortFunc(list, func(a, b StayView) int { return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID)) })
	return list
}

// EndStay ends a stay, of who asks or, for an administrator, of anybody. One that has ended is no error.
func (f *Fleet) EndStay(ctx context.Context, id string) error {
	a, known := ActorOf(ctx)
	return f.change(ctx, func(d *draft) error {
		l := lookup[*Login](d, KindLogin, id)
		if l == nil {
			return nil
		}
		if known && !a.Role.Includes(RoleAdmin) && l.User != GroupID(a.Name) {
			return may(ctx, RoleAdmin, "end the logins of others")
		}
		d.remove(l.Ref())
		name := l.User
		if u := lookup[*User](d, KindUser, l.User); u != nil {
			name = u.Name
		}
		d.event(by(ctx, Event{Kind: "user.logout", Text: "a login of " + name + " was ended"}))
		return nil
	})
}
