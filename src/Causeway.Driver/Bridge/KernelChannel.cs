using Causeway.Fuse;
using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Driver.Bridge;

/// <summary>What a look for a request has found.</summary>
internal enum Arrival
{
    /// <summary>None is there.</summary>
    None,

    /// <summary>A request.</summary>
    Request,

    /// <summary>The connection has ended: unmounted, or aborted.</summary>
    Over,
}

/// <summary>A request of the kernel, in the memory of a slot.</summary>
/// <param name="slot">The slot; <see cref="NoSlot"/> for what is not to be answered.</param>
/// <param name="message">The request, to be changed by who sends it on.</param>
/// <param name="request">Where it is in the memory of the slot.</param>
/// <param name="reply">Where the reply goes.</param>
internal readonly unsafe ref struct KernelRequest(int slot, byte* message, SlotPart request, SlotPart reply)
{
    /// <summary>The slot of a message that lies elsewhere: FORGET, BATCH_FORGET and INTERRUPT.</summary>
    public const int NoSlot = -1;

    /// <summary>The slot.</summary>
    public int Slot { get; } = slot;

    /// <summary>The request.</summary>
    public byte* Message { get; } = message;

    /// <summary>Its length in bytes.</summary>
    public int Length => Request.Length;

    /// <summary>Where it is in the memory of the slot.</summary>
    public SlotPart Request { get; } = request;

    /// <summary>Where the reply goes.</summary>
    public SlotPart Reply { get; } = reply;
}

/// <summary>
/// One thread's end of the connection with the kernel: how requests come into the slots of its queue, and how replies go.
/// Used by that thread alone.
/// </summary>
internal abstract unsafe class KernelChannel : IDisposable
{
    /// <summary>Bytes of the header of a reply.</summary>
    protected const int ReplyHeaderSize = 16;

    /// <summary>Replies that the kernel has refused.</summary>
    public long RefusedReplies { get; protected set; }

    /// <summary>Why the connection has ended, when it is not by unmounting.</summary>
    public virtual string? Failure => null;

    /// <summary>How many locks may be waited for at a time, of those that share slots with a request.</summary>
    public abstract int LockSlots { get; }

    /// <summary>Begins to serve with the slots of a queue. Called by the thread.</summary>
    /// <param name="queue">The queue.</param>
    public abstract void Begin(VirtioFsQueue queue);

    /// <summary>Looks for a request.</summary>
    /// <param name="isFirst">Whether it is the first look of several in a row.</param>
    /// <param name="request">The request.</param>
    public abstract Arrival TryTake(bool isFirst, out KernelRequest request);

    /// <summary>Answers a request and gives its slot back.</summary>
    /// <param name="slot">The slot.</param>
    /// <param name="header">The header of the reply.</param>
    /// <param name="body">What comes after it.</param>
    /// <param name="length">How many bytes.</param>
    public abstract void Answer(int slot, FuseOutHeader header, byte* body, int length);

    /// <summary>Gives a slot back whose message is not answered.</summary>
    /// <param name="slot">The slot, or none.</param>
    public abstract void Release(int slot);

    /// <summary>Sees to it that the kernel has what was answered.</summary>
    public virtual void Flush()
    {
    }

    /// <summary>
    /// Has the next <see cref="TryTake"/> look whether there is a request, also when nothing has said so. Where that can be
    /// told without a system call, it looks in any case.
    /// </summary>
    public virtual void Expect()
    {
    }

    /// <summary>Sleeps until a request, a reply of the device, or the control event.</summary>
    /// <param name="hasRoom">Whether there is a slot for a request.</param>
    /// <param name="timeoutMilliseconds">How long at most.</param>
    public abstract void Wait(bool hasRoom, int timeoutMilliseconds);

    /// <summary>Takes a request when there is one, and has it fail with EIO.</summary>
    public abstract void Refuse();

    /// <inheritdoc/>
    public abstract void Dispose();

    /// <summary>The number of a descriptor.</summary>
    protected static int Number(SafeFileHandle handle) => (int)handle.DangerousGetHandle();
}
