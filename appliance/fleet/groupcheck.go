package fleet

// CheckGroup returns what an order for a group would be refused for whatever group it is for, by the field's name in JSON, so that a form can
// say all at once. What depends on the group and its machines is left to NewGroup and EditGroup. It changes nothing.
func (f *Fleet) CheckGroup(o GroupOrder) map[string]string {
	wrong := map[string]string{}
	for field, one := range map[string]GroupOrder{
		"kind": {Kind: o.Kind}, "notes": {Notes: o.Notes}, "limit": {Limit: o.Limit}, "windows": {Windows: o.Windows}, "uplink": {Uplink: o.Uplink},
		"uplink_limit": {UplinkLimit: o.UplinkLimit}, "broadcast": {Broadcast: o.Broadcast}, "rows": {Rows: o.Rows}, "columns": {Columns: o.Columns},
	} {
		if err := new(Group).take(one); err != nil {
			wrong[field] = err.Error()
		}
	}
	return wrong
}
