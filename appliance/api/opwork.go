package api

import (
	"context"

	"seedbed/appliance/fleet"
)

func (o *Operators) addWork() {
	add(o, "POST", "/work", "work", "Have machines verify, repair or wipe their disks, or tell what they are", func(ctx context.Context, in *struct{ Body fleet.WorkOrder }) (*answer[[]Job], error) {
		made, err := o.fleet.Work(ctx, in.Body)
		if err != nil {
			return nil, err
		}
		list := make([]Job, 0, len(made))
		for _, j := range made {
			list = append(list, viewJob(j))
		}
		return body(list, nil)
	}, made)
	add(o, "POST", "/work/plan", "planWork", "Say what such jobs would do to which disks, and change nothing", func(ctx context.Context, in *struct{ Body fleet.WorkOrder }) (*answer[*fleet.WorkPlan], error) {
		return body(o.fleet.PlanWork(ctx, in.Body))
	})
}
