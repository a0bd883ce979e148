namespace Causeway.Virtio;

/// <summary>An address as the guest's devices see it (guest physical address): descriptors and dirty logs use it.</summary>
/// <param name="Value">The address in bytes.</param>
public readonly record struct GuestAddress(ulong Value)
{
    /// <inheritdoc/>
    public override string ToString() => $"0x{Value:x}";
}

/// <summary>
/// An address in the front end's address space (vhost-user's "user address"): the control socket names rings by it.
/// </summary>
/// <param name="Value">The address in bytes.</param>
public readonly record struct FrontendAddress(ulong Value)
{
    /// <inheritdoc/>
    public override string ToString() => $"0x{Value:x}";
}
