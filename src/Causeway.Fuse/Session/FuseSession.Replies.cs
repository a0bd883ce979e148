using System.Runtime.CompilerServices;
using Causeway.Linux;

namespace Causeway.Fuse;

/// <content>
/// From the file system's result to the reply. A file system that completes at once, which is the normal case, costs no
/// state machine; for one that completes later there is one continuation from a pool.
/// </content>
public sealed partial class FuseSession
{
    // Kinds of violation already logged, and opcodes whose exception was; one bit each.
    private long _reportedViolations;
    private long _reportedFailures;

    /// <summary>How a value becomes a reply. A type argument, so that nothing is allocated for the choice.</summary>
    private interface IReply<T>
    {
        static abstract int Write(FuseSession session, FuseRequest request, in T value);
    }

    private ValueTask<int> Finish<T, TReply>(FuseRequest request, in ValueTask<Result<T>> task)
        where TReply : IReply<T>
    {
        if (!task.IsCompletedSuccessfully)
        {
            return FinishLater<T, TReply>(request, task);
        }

        return new(Conclude<T, TReply>(request, task.Result));
    }

    private ValueTask<int> Finish<TReply>(FuseRequest request, ValueTask<Errno> task)
        where TReply : IReply<Errno>
    {
        if (!task.IsCompletedSuccessfully)
        {
            return FinishLater<TReply>(request, task);
        }

        Errno error = task.Result;
        return new(TReply.Write(this, request, in error));
    }

    private ValueTask<int> Finish(FuseRequest request, ValueTask<Errno> task) => Finish<StatusReply>(request, task);

    private ValueTask<int> Finish<T>(FuseRequest request, in ValueTask<Result<T>> task)
        where T : unmanaged => Finish<T, StructureReply<T>>(request, in task);

    // Not inlined: the state machine lies in the frame of whoever starts it, and every request would carry it.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private ValueTask<int> FinishLater<T, TReply>(FuseRequest request, in ValueTask<Result<T>> task)
        where TReply : IReply<T>
    {
        BeginWait(request);
        return FinishLaterAsync<T, TReply>(request, task);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private ValueTask<int> FinishLater<TReply>(FuseRequest request, ValueTask<Errno> task)
        where TReply : IReply<Errno>
    {
        BeginWait(request);
        return FinishLaterAsync<TReply>(request, task);
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<int> FinishLaterAsync<T, TReply>(FuseRequest request, ValueTask<Result<T>> task)
        where TReply : IReply<T>
    {
        try
        {
            Result<T> result = await task.ConfigureAwait(false);
            return Conclude<T, TReply>(request, in result);
        }
        catch (Exception exception)
        {
            return Fail(request, exception);
        }
        finally
        {
            EndWait(request);
        }
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<int> FinishLaterAsync<TReply>(FuseRequest request, ValueTask<Errno> task)
        where TReply : IReply<Errno>
    {
        try
        {
            Errno error = await task.ConfigureAwait(false);
            return TReply.Write(this, request, in error);
        }
        catch (Exception exception)
        {
            return Fail(request, exception);
        }
        finally
        {
            EndWait(request);
        }
    }

    private int Conclude<T, TReply>(FuseRequest request, in Result<T> result)
        where TReply : IReply<T>
    {
        if (result.IsError)
        {
            return request.ReplyError(result.Error);
        }

        return TReply.Write(this, request, in result.ValueInPlace);
    }

    /// <summary>Answers a request that one of the checks of <see cref="FuseRequest"/> has refused.</summary>
    private ValueTask<int> Refuse(FuseRequest request)
    {
        if (request.RefusalViolation != FuseViolation.None)
        {
            Report(request, request.RefusalViolation);
        }

        return new(request.ReplyError(request.RefusalError));
    }

    /// <summary>Counts a violation, and logs the first of its kind.</summary>
    private void Report(FuseRequest request, FuseViolation violation)
    {
        request.Counters.CountViolation(violation);
        if (IsFirst(ref _reportedViolations, (int)violation))
        {
            Log.GuestBrokeProtocol(_logger, _options.Name, violation, Convert.ToHexString(request.CopiedPrefix));
        }
    }

    /// <summary>
    /// What becomes of an exception: the one place that maps them. Throwing costs more than a system call, so this is a
    /// courtesy to file systems; expected failures are returned.
    /// </summary>
    private int Fail(FuseRequest request, Exception exception)
    {
        AbandonInit(request);
        if (exception is OperationCanceledException)
        {
            return request.ReplyError(Errno.EINTR);
        }

        if (exception is ErrnoException known)
        {
            return request.ReplyError(known.Error);
        }

        FuseOpcode opcode = request.Header.Opcode;
        if (IsFirst(ref _reportedFailures, (int)opcode))
        {
            Log.FileSystemFailed(_logger, exception, _options.Name, opcode);
        }

        return request.ReplyError(Errno.EIO);
    }

    /// <summary>Answers for a file system that returned a number it must not return.</summary>
    private int FailContract(FuseRequest request, long value)
    {
        FuseOpcode opcode = request.Header.Opcode;
        if (IsFirst(ref _reportedFailures, (int)opcode))
        {
            Log.FileSystemBrokeContract(_logger, _options.Name, opcode, value, request.PayloadLength);
        }

        return request.ReplyError(Errno.EIO);
    }

    private static bool IsFirst(ref long reported, int bit)
    {
        long mask = 1L << bit;
        return (Volatile.Read(ref reported) & mask) == 0 && (Interlocked.Or(ref reported, mask) & mask) == 0;
    }

    private readonly struct StatusReply : IReply<Errno>
    {
        public static int Write(FuseSession session, FuseRequest request, in Errno value) =>
            value == Errno.Success ? request.ReplyEmpty() : request.ReplyError(value);
    }

    private readonly struct StructureReply<T> : IReply<T>
        where T : unmanaged
    {
        public static int Write(FuseSession session, FuseRequest request, in T value) => request.Reply(in value);
    }
}
